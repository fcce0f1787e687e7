"""What belongs to one key: another one gets for it just what it gets for something that never was."""

import json
import re
from typing import Any

import pytest
from security.fort import Fort, chat, status_of

pytestmark = pytest.mark.process

LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": chat("private")}


async def call(
    fort: Fort, method: str, path: str, key: str = "all", body: bytes = b"", kind: str = "application/json"
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer."""
    head = fort.head(path, key, method, content_type=kind, content_length=str(len(body)), connection="close")
    answer = await fort.say(head + b"\r\n" + body)
    before, _, rest = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in before.decode("latin-1").split("\r\n")[1:])
    return status_of(answer), rest, headers


async def made(fort: Fort, path: str, body: Any, kind: str = "application/json") -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, rest, _ = await call(fort, "POST", path, body=data, kind=kind)
    assert status == 200, rest
    return dict(json.loads(rest))


async def belongings(fort: Fort) -> dict[str, str]:
    """Make one thing of each kind, with the first key: their ids."""
    form = (
        b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + json.dumps(LINE).encode()
        + b"\r\n--b--\r\n"
    )
    file = await made(fort, "/v1/files", form, "multipart/form-data; boundary=b")
    wish = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = await made(fort, "/v1/batches", wish)
    response = await made(fort, "/v1/responses", {"model": "local", "input": "private"})
    return {"file": file["id"], "batch": batch["id"], "response": response["id"]}


def nobody(id_: str) -> str:
    """An id of the same form that was never given out."""
    return id_[:-8] + ("0" * 8 if id_[-8:] != "0" * 8 else "1" * 8)


ROUTES = [
    ("GET", "/v1/files/{file}"),
    ("GET", "/v1/files/{file}/content"),
    ("DELETE", "/v1/files/{file}"),
    ("GET", "/v1/batches/{batch}"),
    ("POST", "/v1/batches/{batch}/cancel"),
    ("GET", "/v1/responses/{response}"),
    ("GET", "/v1/responses/{response}/input_items"),
    ("POST", "/v1/responses/{response}/cancel"),
    ("DELETE", "/v1/responses/{response}"),
]


async def test_anothers_is_as_if_it_were_not_there(fort: Fort) -> None:
    """Same status, same words, same headers: whether an id exists can't be learned from the answer."""
    ids = await belongings(fort)
    for method, path in ROUTES:
        theirs = await call(fort, method, path.format(**ids), "other")
        absent = await call(fort, method, path.format(**{name: nobody(id_) for name, id_ in ids.items()}), "other")
        assert theirs[0] == absent[0] == 404, path
        assert _without_ids(theirs[1]) == _without_ids(absent[1]), path
        assert set(theirs[2]) == set(absent[2]), path
        assert b"private" not in theirs[1]
    for body, path in [
        ({"model": "local", "input": "x", "previous_response_id": ids["response"]}, "/v1/responses"),
        ({"input_file_id": ids["file"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}, "/v1/batches"),
        ({"request_id": ids["response"][-32:], "good": True}, "/v1/feedback"),
    ]:
        absent_body = json.loads(
            json.dumps(body).replace(ids["file"], nobody(ids["file"])).replace(ids["response"], nobody(ids["response"]))
        )
        theirs = await call(fort, "POST", path, "other", json.dumps(body).encode())
        absent = await call(fort, "POST", path, "other", json.dumps(absent_body).encode())
        assert 400 <= theirs[0] < 500, theirs
        assert (theirs[0], _without_ids(theirs[1])) == (absent[0], _without_ids(absent[1])), path
    for path in ("/v1/files", "/v1/batches", "/v1/feedback"):
        status, rest, _ = await call(fort, "GET", path, "other")
        assert status == 200
        assert not any(id_.encode() in rest for id_ in ids.values()), path
    # Nothing of all this has touched what is there.
    assert (await call(fort, "GET", f"/v1/files/{ids['file']}/content"))[0] == 200
    assert (await call(fort, "GET", f"/v1/responses/{ids['response']}"))[0] == 200


def _without_ids(body: bytes) -> str:
    return re.sub(r"[0-9a-f]{16,}", "#", body.decode())


PATHS = [
    *(
        "..",
        "../..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..%5cx",
        "%00",
        "a%00b",
    ),
    *("....//....//etc/passwd", "%252e%252e%252f", "/etc/passwd", "file-*", "file->", "*", ">", "%2a.%3e", "file-.."),
    *(
        "%c0%ae%c0%ae/",
        "%ff%fe",
        "file-" + "0" * 5_000,
        "file-%0d%0aset-cookie:%20x=1",
        "%E2%80%AE",
        "$JS.API.STREAM.LIST",
    ),
    *(
        "file-../../batch/x",
        "{file}/../{file}",
        "{file}%00",
        "{file}.",
        "{file}/",
        "{file}%20",
        "{FILE}",
        "stream.batch.%3e",
    ),
]


@pytest.mark.parametrize("path", PATHS)
async def test_ids_are_no_paths(fort: Fort, path: str) -> None:
    """Neither folders nor the broker's wildcards; whatever stands in the place of an id is refused or not found."""
    known = "file-" + "ab" * 16
    hostile = path.replace("{file}", known).replace("{FILE}", known.upper())
    for method, route in [(m, r) for m, r in ROUTES if m != "DELETE"]:
        target = re.sub(r"\{\w+\}", lambda _: hostile, route)
        status, rest, headers = await call(fort, method, target, "other")
        assert status in {307, 400, 404, 405}, (target, status, rest[:300])
        assert "set-cookie" not in headers
        assert b"root:" not in rest
    assert "Traceback" not in fort.gateway.program.log()


@pytest.mark.parametrize(
    "id_", [*PATHS, "", "file-", "resp_" + "0" * 48 + ".*", "batch_" + "0" * 32, "\u0000", "\ud800"]
)
async def test_ids_in_bodies_are_no_paths(fort: Fort, id_: str) -> None:
    """The same for the ids that stand in a request: none leads to another record, another key's or the broker's own."""
    known = "file-" + "ab" * 16
    hostile = id_.replace("{file}", known).replace("{FILE}", known.upper())
    wishes: list[tuple[str, dict[str, Any]]] = [
        ("/v1/batches", {"input_file_id": hostile, "endpoint": "/v1/embeddings", "completion_window": "24h"}),
        ("/v1/responses", {"model": "local", "input": "x", "previous_response_id": hostile}),
        ("/v1/feedback", {"request_id": hostile, "good": True}),
    ]
    for path, body in wishes:
        if not hostile and path == "/v1/responses":
            continue  # an empty one is none: the conversation begins
        status, rest, _ = await call(fort, "POST", path, "other", json.dumps(body).encode())
        assert status in {400, 404}, (path, status, rest[:300])
        assert json.loads(rest)["error"]["param"] in {*body, None}, rest[:300]
        assert len(rest) < 2_000
    assert "Traceback" not in fort.gateway.program.log()
