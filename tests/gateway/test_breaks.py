"""Answers that break, clients that leave, clients that do not read: never a success that is none, never a leak."""

import asyncio
import socket
import struct
from typing import Any

import aiohttp
import orjson
import psutil
import pytest
from gateway.stage import Gateway, chat, configure, connection, error_of, events_of, tier, until
from gateway.upstream import DONE, EVENT, FINISH, STREAM_HEAD, upstream, whole

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"


async def ask(gateway: Gateway, client: aiohttp.ClientSession, body: dict[str, Any]) -> tuple[int, bytes]:
    async with client.post(gateway.url + PATH, json=body, headers=gateway.headers()) as response:
        return response.status, await response.read()


def assert_broken(body: bytes, whole_events: int, code: str) -> None:
    """The stream has these events, then one error, and no end that looks like a success."""
    events = events_of(body)
    assert len(events) == whole_events + 1
    assert error_of(events[-1].removeprefix(b"data: "))["code"] == code
    assert b"[DONE]" not in body
    assert b'"finish_reason":"stop"' not in body


async def test_a_cut_connection_is_an_error_event(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A connection that the engine cuts in the middle ends as an error event, without "[DONE]"."""
    status, body = await ask(gateway, client, chat("local", script={"tokens": 9, "cut": 4, "interval_ms": 5}))
    assert status == 200
    assert_broken(body, 4, "stream_broken")


@pytest.mark.parametrize(
    ("sent", "events", "code"),
    [
        ([EVENT, EVENT], 2, "stream_broken"),
        ([EVENT, EVENT[:-20]], 1, "stream_broken"),
        ([EVENT, FINISH[:-1]], 1, "stream_broken"),
    ],
    ids=["no end", "half an event", "half a blank line"],
)
async def test_an_end_without_an_end_is_an_error_event(
    bare: Gateway, client: aiohttp.ClientSession, sent: list[bytes], events: int, code: str
) -> None:
    """A body that just ends is no success, and half an event is never sent on."""
    async with upstream(STREAM_HEAD + b"".join(sent)) as engine:
        await configure(bare, tier("local", engine.url))
        status, body = await ask(bare, client, chat("local"))
    assert status == 200
    assert_broken(body, events, code)


@pytest.mark.parametrize("last", [b"", b"data: [DONE]", b"data: [DONE]\n"], ids=["none", "bare", "one line end"])
async def test_a_finished_answer_gets_its_done(bare: Gateway, client: aiohttp.ClientSession, last: bytes) -> None:
    """An engine that says why it finished and leaves out "[DONE]", or its blank line, has finished."""
    usage = b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\n'
    async with upstream(STREAM_HEAD + EVENT + FINISH + usage + last) as engine:
        await configure(bare, tier("local", engine.url))
        body = chat("local", stream_options={"include_usage": True})
        assert await ask(bare, client, body) == (200, EVENT + FINISH + usage + DONE)


async def test_a_whole_answer_that_breaks_is_an_error(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """A body shorter than announced is 502 and an error body, not half an answer."""
    answer = whole("200 OK", b'{"choices": []}').replace(b"content-length: 15", b"content-length: 999")
    async with upstream(answer) as engine:
        await configure(bare, tier("local", engine.url))
        status, body = await ask(bare, client, chat("local", stream=False))
    assert status == 502
    assert error_of(body)["code"] == "stream_broken"


async def test_a_silent_engine_is_given_up(bare: Gateway, client: aiohttp.ClientSession) -> None:
    """Silence in the middle of an answer ends it after the tier's limit, and the engine is left."""
    async with upstream(STREAM_HEAD + EVENT, silent=True) as engine:
        await configure(bare, tier("local", engine.url, idle_timeout_s=0.2))
        status, body = await ask(bare, client, chat("local"))
        assert status == 200
        assert_broken(body, 1, "upstream_timeout")
        async with asyncio.timeout(60):
            await engine.left.wait()


@pytest.mark.parametrize("answer", [b"", STREAM_HEAD], ids=["no head", "head alone"])
async def test_no_first_token_in_time_is_a_timeout(bare: Gateway, client: aiohttp.ClientSession, answer: bytes) -> None:
    """An engine that takes the request and says nothing is 504 after the tier's limit, which the error names."""
    async with upstream(answer, silent=True) as engine:
        await configure(bare, tier("local", engine.url, first_token_timeout_s=0.3))
        status, body = await ask(bare, client, chat("local"))
        async with asyncio.timeout(60):
            await engine.left.wait()
    assert status == 504
    assert error_of(body)["code"] == "upstream_timeout"
    assert "0.3 s" in error_of(body)["message"]


@pytest.mark.parametrize("script", [{"tokens": 1000, "interval_ms": 20}, {"delay_ms": 60_000}, {"hang": True}])
async def test_when_the_client_leaves_the_engine_stops(
    gateway: Gateway, engine: str, client: aiohttp.ClientSession, script: dict[str, Any]
) -> None:
    """A client that leaves, amid the answer or before it, ends the engine's work at once."""
    async with client.get(f"{engine}/requests") as response:
        before = await response.json()
    aborted = sum(record["ended"] == "aborted" for record in before)
    body = orjson.dumps(chat("local", script=script))
    async with connection(gateway) as (reader, writer):
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}authorization: {gateway.headers()['authorization']}\r\n\r\n".encode() + body)
        if "tokens" in script:
            await reader.readuntil(b"token")
        else:
            await _received(client, engine, len(before) + 1)
    async with client.get(f"{engine}/events", params={"aborted": aborted + 1}) as response:
        record = (await response.json())[len(before)]
    assert record["ended"] == "aborted"
    assert record["aborted_after_ms"] < 10_000
    await until(lambda: any(line["ended"] == "client_gone" for line in gateway.lines("request")[-3:]))


async def test_a_slow_reader_stops_the_engine_and_nobody_else(
    gateway: Gateway, engine: str, client: aiohttp.ClientSession, request: pytest.FixtureRequest
) -> None:
    """A client that stops reading stops its own engine stream; memory stays, others are served, nothing is lost."""
    tokens = 150_000
    memory = psutil.Process(gateway.program.process.pid).memory_info
    async with client.get(f"{engine}/requests") as response:
        number = len(await response.json())
    rss = memory().rss
    body = orjson.dumps(chat("local", script={"tokens": tokens, "per_write": 16}))
    sock = socket.socket()
    request.addfinalizer(sock.close)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
    sock.connect(("127.0.0.1", gateway.port))
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    sock.sendall(
        f"{head}connection: close\r\nauthorization: {gateway.headers()['authorization']}\r\n\r\n".encode() + body
    )
    sent = await _stands_still(client, engine, number)
    assert 0 < sent < tokens / 2, "the engine was stopped long before its end"
    assert memory().rss - rss < 16 * 1024 * 1024
    status, answer = await ask(gateway, client, chat("local"))
    assert (status, answer[-len(DONE) :]) == (200, DONE)
    received = await asyncio.to_thread(_read_all, sock)
    assert received.count(b'" token"') == tokens
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert memory().rss - rss < 32 * 1024 * 1024


async def test_a_reset_of_the_client_is_no_error_of_ours(gateway: Gateway, client: aiohttp.ClientSession) -> None:
    """A client that resets its connection leaves no stack trace behind."""
    body = orjson.dumps(chat("local", script={"tokens": 1000, "interval_ms": 5}))
    sock = socket.create_connection(("127.0.0.1", gateway.port))
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    sock.sendall(f"{head}authorization: {gateway.headers()['authorization']}\r\n\r\n".encode() + body)
    before = sum(line["ended"] == "client_gone" for line in gateway.lines("request"))
    await asyncio.to_thread(sock.recv, 100)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    await until(lambda: sum(line["ended"] == "client_gone" for line in gateway.lines("request")) > before)
    assert "Traceback" not in gateway.program.log()


def _read_all(sock: socket.socket) -> bytes:
    with sock:
        sock.settimeout(30)
        return b"".join(iter(lambda: sock.recv(1 << 20), b""))


async def _received(client: aiohttp.ClientSession, engine: str, count: int) -> None:
    for _ in range(1_000):
        async with client.get(f"{engine}/requests") as response:
            if len(await response.json()) >= count:
                return
    raise AssertionError("the engine got no request")


async def _stands_still(client: aiohttp.ClientSession, engine: str, number: int) -> int:
    """How much the engine has sent when that no longer grows."""
    last, same = -1, 0
    for _ in range(400):
        async with client.get(f"{engine}/requests") as response:
            records = await response.json()
        sent = records[number]["sent"] if len(records) > number else -1
        same = same + 1 if sent == last and sent > 0 else 0
        if same == 10:
            return int(sent)
        last = sent
        await asyncio.sleep(0.02)  # between two looks: standing still is a matter of time
    raise AssertionError("the engine never stood still")
