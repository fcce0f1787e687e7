"""Bodies made to hurt whoever reads them: each is answered by a client's error, or taken for what it is."""

import asyncio
import base64
import gzip
import json
import re
import zlib
from typing import Any

import pytest
from gateway.fetching.test_pictures import PICTURES
from security.fort import Fort, chat, error_of, status_of

pytestmark = pytest.mark.process

MESSAGES = '"messages":[{"role":"user","content":"x"}]'


def deep(opening: str, closing: str, levels: int) -> str:
    return f'{{"model":"local",{MESSAGES},"metadata":{{"a":{opening * levels}1{closing * levels}}}}}'


HOSTILE = {
    "arrays in arrays": deep("[", "]", 100_000),
    "objects in objects": deep('{"a":', "}", 100_000),
    "a little too deep": deep("[", "]", 250),
    "no end": "[" * 1_000_000,
    "a huge integer": f'{{"model":"local",{MESSAGES},"seed":{"9" * 100_000}}}',
    "a huge exponent": f'{{"model":"local",{MESSAGES},"temperature":1e999999999}}',
    "a tiny exponent": f'{{"model":"local",{MESSAGES},"temperature":-1e-999999999}}',
    "not a number": f'{{"model":"local",{MESSAGES},"temperature":NaN}}',
    "infinity": f'{{"model":"local",{MESSAGES},"top_p":Infinity}}',
    "an integer of 65 bits": f'{{"model":"local",{MESSAGES},"max_tokens":36893488147419103232}}',
    "a lone surrogate": '{"model":"local","messages":[{"role":"user","content":"\\ud800"}]}',
    "a surrogate in a key": f'{{"model":"local",{MESSAGES},"\\udfff":1}}',
    "a surrogate in a name": f'{{"model":"\\ud800",{MESSAGES}}}',
    "nul characters": '{"model":"local","messages":[{"role":"user","content":"a\\u0000b"}]}',
    "a nul in a name": f'{{"model":"local\\u0000",{MESSAGES}}}',
    "a raw nul": f'{{"model":"local",{MESSAGES}}}\x00',
    "a byte order mark": f'\ufeff{{"model":"local",{MESSAGES}}}',
    "two bodies": f'{{"model":"local",{MESSAGES}}}{{"model":"local",{MESSAGES}}}',
    "no object": '"model"',
    "nothing": "",
    "half a character": b'{"model":"\xc3"}',
    "bytes of no text": bytes(range(256)) * 10,
    "utf-16": f'{{"model":"local",{MESSAGES}}}'.encode("utf-16"),
    "a formula of names": f'{{"model":"__proto__",{MESSAGES},"constructor":{{"prototype":1}}}}',
    "very many fields": json.dumps({**chat(), **{f"x{n}": n for n in range(100_000)}}),
    "a very long name": json.dumps(chat(model="m" * 1_000_000)),
    "a very long role": '{"model":"local","messages":[{"role":"' + "r" * 1_000_000 + '","content":"x"}]}',
}
PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions", "/v1/embeddings", "/v1/route"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_nothing_breaks(fort: Fort, name: str) -> None:
    """No status of the server's own, no trace, and an error whose words are not as long as what was sent."""
    body = HOSTILE[name]
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    for path in PATHS:
        answer = await fort.say(fort.request(data, path))
        assert status_of(answer) in {200, 400, 404, 413}, (path, answer[:500])
        assert len(answer) < 20_000, path
        assert b"Traceback" not in answer
    assert "Traceback" not in fort.gateway.program.log()


async def test_the_last_of_two_equal_fields_is_what_all_see(fort: Fort) -> None:
    """Who decides and who answers read one body: the gateway writes what it has read, with each field once."""
    body = f'{{"model":"cloud","model":"local",{MESSAGES},"n":1,"n":2,"user":"twice-1","user":"twice-2"}}'
    assert status_of(await fort.say(fort.request(body.encode()))) == 200
    (sent,) = [data for data in fort.engine.bodies if b"twice-" in data]
    assert (sent.count(b'"model"'), sent.count(b'"n"'), b"twice-1" in sent, b"twice-2" in sent) == (1, 1, False, True)


BOMB = zlib.compress(bytes(64 * 1024 * 1024), 9)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x-unknown"])
async def test_a_compressed_body_is_not_unpacked(fort: Fort, encoding: str) -> None:
    """415 by its header alone, for requests and uploads; nothing is ever unpacked here."""
    data = gzip.compress(json.dumps(chat("packed")).encode()) if encoding.endswith("gzip") else BOMB
    for path in [*PATHS, "/v1/files"]:
        kind = 'multipart/form-data; boundary="b"' if path == "/v1/files" else "application/json"
        answer = await fort.say(fort.request(data, path, content_encoding=encoding, content_type=kind))
        assert status_of(answer) == 415, (path, answer[:300])
        assert b"content-encoding" in answer
    assert not fort.engine.was_asked("packed")


def form(*parts: tuple[str, bytes]) -> bytes:
    return b"".join(b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + b"--b--\r\n"


FILE = 'content-disposition: form-data; name="file"; filename="x.jsonl"'
PURPOSE = 'content-disposition: form-data; name="purpose"'
FORMS = {
    "no end": form((PURPOSE, b"batch"), (FILE, b"x"))[:-6],
    "a part that never ends its head": b"--b\r\n" + b"x: y\r\n" * 50_000,
    "a head of a part of 1 MB": b"--b\r\ncontent-disposition: " + b"z" * 1_000_000,
    "ten thousand fields": form(*[(f'content-disposition: form-data; name="f{n}"', b"") for n in range(10_000)]),
    "a field of 1 MB": form((PURPOSE, b"b" * 1_000_000)),
    "a name of 100 kB": form((f'content-disposition: form-data; name="{"n" * 100_000}"', b"")),
    "two files": form((PURPOSE, b"batch"), (FILE, b"x"), (FILE, b"y")),
    "no file": form((PURPOSE, b"batch")),
    "an empty file": form((PURPOSE, b"batch"), (FILE, b"")),
    "a huge expiry": form(
        (PURPOSE, b"batch"),
        (FILE, b"x"),
        ('content-disposition: form-data; name="expires_after[anchor]"', b"created_at"),
        ('content-disposition: form-data; name="expires_after[seconds]"', b"9" * 4_000),
    ),
    "only boundaries": b"--b\r\n" * 100_000,
    "another boundary": form((PURPOSE, b"batch")).replace(b"--b", b"--c"),
    "nothing": b"",
    "a form in a form": form((FILE, b"x"), ("content-type: multipart/form-data; boundary=b", form((FILE, b"y")))),
}


@pytest.mark.parametrize("name", FORMS)
async def test_an_upload_that_is_none(fort: Fort, name: str) -> None:
    """Malformed, endless, too much of something: 400 with a reason, and nothing of it is kept."""
    data = FORMS[name]
    answer = await fort.say(fort.request(data, "/v1/files", content_type="multipart/form-data; boundary=b"))
    assert status_of(answer) == 400, answer[:500]
    assert error_of(answer)["type"] == "invalid_request_error"
    assert len(answer) < 5_000
    listed = await fort.say(fort.head("/v1/files", method="GET", connection="close") + b"\r\n")
    assert json.loads(listed.partition(b"\r\n\r\n")[2])["data"] == []


async def test_malformed_uploads_are_no_flood_of_lines(fort: Fort) -> None:
    """Each is counted, and of many of them the log has a line a minute, whatever the library would say."""
    before = await _malformed(fort)
    for _ in range(30):
        data = FORMS["another boundary"]
        answer = await fort.say(fort.request(data, "/v1/files", content_type="multipart/form-data; boundary=b"))
        assert status_of(answer) == 400
    assert await _malformed(fort) == before + 30
    log = fort.gateway.program.log()
    assert "python_multipart" not in log
    assert log.count("malformed_upload: ") < before + 15


async def _malformed(fort: Fort) -> int:
    answer = await fort.say(fort.head("/metrics", method="GET", connection="close") + b"\r\n")
    found = re.findall(rb'stream_faults_total\{kind="malformed_upload"\} (\d+)', answer)
    return int(found[0]) if found else 0


@pytest.mark.parametrize("boundary", ["", "b" * 5_000, "\x00", "b; boundary=c", '"', "é"])
async def test_a_boundary_that_is_none(fort: Fort, boundary: str) -> None:
    """The header that says where parts end may be anything."""
    data = form((PURPOSE, b"batch"), (FILE, b""))
    answer = await fort.say(fort.request(data, "/v1/files", content_type=f"multipart/form-data; boundary={boundary}"))
    assert status_of(answer) == 400


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/feedback", "/v1/route", "/v1/messages/count_tokens"])
async def test_a_body_without_an_end(fort: Fort, path: str) -> None:
    """No route reads more than the limit, whether a length is told or the chunks just don't end."""
    most = 32 * 1024 * 1024
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    head = fort.head(path, content_type="application/json", transfer_encoding="chunked", connection="close")
    answer = await fort.say(head + b"\r\n" + piece * (most // 65_536 + 2) + b"0\r\n\r\n")
    assert status_of(answer) == 413, answer[:300]
    assert f"{most:,}".encode() in answer


BOMB_URL = f"data:image/png;base64,{base64.b64encode(PICTURES['png'][0]).decode()}"
SHOWN = {"type": "image_url", "image_url": {"url": BOMB_URL}}
SHOWING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": [SHOWN]}]},
    "/v1/route": {"messages": [{"role": "user", "content": [SHOWN]}]},
    "/v1/responses": {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": BOMB_URL, "detail": "auto"}]}]
    },
    "/v1/messages": {
        "max_tokens": 5,
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {
                            "type": "base64",
                            "media_type": "image/png",
                            "data": BOMB_URL.partition(",")[2],
                        },
                    }
                ],
            }
        ],
    },
}


@pytest.mark.parametrize("path", SHOWING)
async def test_a_picture_that_claims_too_much(fort: Fort, path: str) -> None:
    """Sixty bytes that say 60,000 x 60,000 pixels: 400 with the place and both numbers, before any engine sees them."""
    answer = await fort.say(fort.request({"model": "local", **SHOWING[path]}, path))
    assert status_of(answer) == 400, answer[:500]
    assert b"3,600,000,000 pixels, at most 178,956,970 are allowed" in answer
    assert b"messages[0].content[0].image_url" in answer
    assert not fort.engine.was_asked(BOMB_URL[30:60])


async def test_many_at_once(fort: Fort) -> None:
    """While the worst of them come ten at a time, an ordinary request is answered."""
    worst: list[Any] = [HOSTILE["no end"], HOSTILE["arrays in arrays"], HOSTILE["very many fields"]] * 10
    attack = [asyncio.create_task(fort.say(fort.request(body.encode()))) for body in worst]
    assert status_of(await fort.say(fort.request(chat()))) == 200
    assert {status_of(answer) for answer in await asyncio.gather(*attack)} <= {200, 400, 413}
