"""API keys: a wrong one teaches nothing, and no right one is ever seen outside."""

import asyncio
import re
from pathlib import Path

import pytest
from security.fort import Fort, chat, error_of, status_of

pytestmark = pytest.mark.process


def with_key(value: bytes, name: bytes = b"authorization", path: str = "/v1/models") -> bytes:
    return b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%s: %s\r\n\r\n" % (path.encode(), name, value)


def wrong(key: str) -> dict[str, bytes]:
    """Keys that are not one, and near misses of a real one."""
    data = key.encode()
    return {
        "unknown": b"Bearer sk-stream-" + b"A" * 43,
        "its beginning": b"Bearer " + data[:-1],
        "more than it": b"Bearer " + data + b"A",
        "another last letter": b"Bearer " + data[:-1] + (b"A" if data[-1:] != b"A" else b"B"),
        "another first letter": b"Bearer T" + data[1:],
        "in capitals": b"Bearer " + data.upper(),
        "a nul behind it": b"Bearer " + data + b"%00",
        "quoted": b'Bearer "' + data + b'"',
        "of another program": b"Bearer sk-" + b"a" * 48,
        "bytes": b"Bearer \xff\xfe\xfd",
    }


async def test_all_wrong_keys_are_alike(fort: Fort) -> None:
    """The same status, body and headers, whether a key is nearly right or nonsense."""
    key = fort.gateway.stage.keys["all"]
    seen = set()
    for name, value in wrong(key).items():
        answer = await fort.say(with_key(value))
        assert status_of(answer) == 401, name
        assert error_of(answer)["code"] == "invalid_api_key"
        head, _, body = answer.partition(b"\r\n\r\n")
        names = tuple(sorted(line.split(b":")[0] for line in head.split(b"\r\n")[1:]))
        seen.add((names, body))
        assert key.encode() not in answer
        assert key[:20].encode() not in answer
    assert len(seen) == 1


@pytest.mark.parametrize(
    "value",
    [b"", b"Bearer", b"Bearer ", b"Basic c2s=", b"Bearer  ", b"bearer\t", b"Token x", b"Bearer " + b"A" * 5_000],
)
async def test_what_is_no_key(fort: Fort, value: bytes) -> None:
    """Other schemes, none at all, and what is far too long."""
    assert status_of(await fort.say(with_key(value))) == 401


async def test_every_route_wants_one(fort: Fort) -> None:
    """All that the OpenAPI document lists, but for probes: 401 without a key, before anything of the body is read."""
    answer = await fort.say(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    routes = re.findall(rb'"((?:/admin)?/v1/[^"]+)":\{((?:"(?:get|post|delete)":)+)?', answer)
    assert len(routes) > 10
    for path, _ in routes:
        for method in (b"GET", b"POST", b"DELETE"):
            target = re.sub(rb"\{\w+\}", b"x", path)
            sent = method + b" " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
            # Stored chat completions are not kept here: for anybody there is nothing at that path but POST.
            none = path == b"/v1/chat/completions" and method != b"POST"
            assert status_of(await fort.say(sent)) in ({404, 405} if none else {401, 405}), (method, path)


async def test_no_key_is_seen_outside(fort: Fort, tmp_path: Path) -> None:
    """Neither in a log nor in any answer nor at the engine, wherever in a request the key was put."""
    key = fort.gateway.stage.keys["all"]
    places = [
        fort.request(chat(model=key)),
        fort.request(chat(user="x", temperature=key)),
        fort.request({"model": "local", "messages": [{"role": key, "content": "x"}]}),
        fort.request(chat(), f"/v1/{key}"),
        fort.request(chat(), f"/v1/files/{key}"),
        fort.request(chat(), f"/v1/chat/completions?key={key}"),
        fort.request(chat(), x_request_id=key, traceparent=key, tracestate=f"a={key}", x_stream_context=key),
        fort.request(chat(), x_stream_privacy=key),
        fort.request(chat(), content_type=key),
        fort.request(key.encode()),
        fort.request(b"{}", content_length=key),
        with_key(f"Bearer {key} {key}".encode()),
        with_key(key.encode(), b"x-api-key"),
        b"GET /" + key.encode() + b" HTTP/9.9\r\n\r\n",
    ]
    answers = await asyncio.gather(*map(fort.say, places))
    assert all(answers)
    log = fort.gateway.program.log()
    for secret in (*fort.gateway.stage.keys.values(), (fort.gateway.stage.folder / "batch.key").read_text()):
        assert secret not in log
        assert secret.encode() not in b"".join(fort.engine.bodies)
        assert secret not in str(fort.engine.headers)
    # What a client sent in a field comes back to that client at most; the credentials themselves never do.
    quiet = fort.gateway.stage.keys["other"]
    assert quiet.encode() not in b"".join(answers)
    assert (tmp_path / "x").parent.exists()
