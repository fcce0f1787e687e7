"""Many clients at once on the HPC tier, one of them slow; clients that leave; engines that break."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import psutil
import pytest

from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process

MESSAGES = [{"role": "user", "content": "hi"}]
MANY_TOKENS = 150_000
"""26 MB of events: more than every socket buffer and window on the way."""
MEMORY_LIMIT = 96 * 1024 * 1024


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Iterator[Road]:
    """Broker, relay, dispatch, worker, scripted engine and gateway."""
    with run_road(tmp_path_factory.mktemp("road")) as running:
        asyncio.run(wait_hot(running))
        yield running


@pytest.fixture
async def session(road) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the gateway; its own buffer is small, so that not reading is felt."""
    headers = {"authorization": f"Bearer {road.api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector, read_bufsize=16 * 1024) as made:
        yield made


def ask(road, session, script, **request):
    body = {"model": "hpc", "stream": True, "messages": MESSAGES, "script": script, **request}
    return session.post(f"{road.gateway_url}/v1/chat/completions", json=body)


async def seen(road, session, *, aborted: int | None = None) -> list[dict]:
    path = "/requests" if aborted is None else f"/events?aborted={aborted}"
    async with session.get(road.engine_url + path) as response:
        return await response.json()


async def test_one_slow_reader_among_64(road, session):
    """63 clients get all of their tokens while one does not read; no process grows, and the slow one loses nothing."""
    gateway = psutil.Process(road.pids()["gateway"])
    before = gateway.memory_info().rss
    script = {"tokens": MANY_TOKENS, "text": "slow", "per_write": 64}
    async with ask(road, session, script) as slow:
        assert slow.status == 200

        async def quick(number: int) -> int:
            async with ask(road, session, {"tokens": 150, "text": f"q{number}", "per_write": 4}) as response:
                return (await response.read()).count(f"q{number}".encode())

        async with asyncio.timeout(90):
            assert await asyncio.gather(*(quick(number) for number in range(63))) == [150] * 63
        (held,) = [r for r in await seen(road, session) if r["body"].get("script", {}).get("text") == "slow"]
        assert held["ended"] is None, "the engine must have been stopped by the slow reader"
        assert gateway.memory_info().rss - before < MEMORY_LIMIT
        async with asyncio.timeout(90):
            assert (await slow.read()).count(b'"slow"') == MANY_TOKENS


async def test_client_that_leaves_stops_the_engine(road, session):
    """When the client's socket closes in mid-answer, the engine's request is aborted."""
    before = sum(request["ended"] == "aborted" for request in await seen(road, session))
    async with ask(road, session, {"tokens": 100_000, "interval_ms": 5}) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(60):
        requests = await seen(road, session, aborted=before + 1)
    assert requests[-1]["ended"] == "aborted"


async def test_stream_cut_short_is_an_error_event(road, session):
    """An engine that dies in mid-answer ends as an error event: no finish reason, no [DONE]."""
    async with ask(road, session, {"tokens": 50, "cut": 10}) as response:
        lines = [line for line in (await response.read()).split(b"\n\n") if line]
    error = json.loads(lines[-1].removeprefix(b"data: "))["error"]
    assert error["code"]
    assert len(lines) == 11
    assert b"[DONE]" not in b"".join(lines)
    assert b'"finish_reason":"stop"' not in b"".join(lines)


async def test_stream_without_an_end_is_an_error_event(road, session):
    """A stream that stops without finish reason and [DONE] is an error, although every socket closed cleanly."""
    async with ask(road, session, {"tokens": 5, "no_finish": True, "no_done": True}) as response:
        body = await response.read()
    assert b'"error"' in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize("status", [400, 422])
async def test_engines_refusal_is_passed_on(road, session, status):
    """The engine's own 4xx reaches the client with its status and body."""
    async with ask(road, session, {"status": status}) as response:
        assert response.status == status
        assert (await response.json(content_type=None))["error"]["code"] == "scripted"


async def kill_worker(road) -> None:
    """`kill -9` of the oldest worker."""
    worker = road.workers()[0]
    worker.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(worker.wait, 5)


async def test_worker_killed_in_mid_answer(road, session):
    """The answer of a worker killed in the middle goes on on its successor: one stream, and its end says so."""
    async with ask(road, session, {"tokens": 200, "interval_ms": 10}) as response:
        await response.content.readany()
        await kill_worker(road)
        async with asyncio.timeout(60):
            body = await response.read()
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"continued":1' in body
    await wait_hot(road)


_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{"}}
_CALLING = json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [_CALL]}}]})
_TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
_ENDLESS = {"tokens": 100_000, "interval_ms": 5, "text": " w{n}"}


@pytest.mark.parametrize(
    ("script", "request_", "marker"),
    [
        (_ENDLESS, {"response_format": {"type": "json_object"}}, b"w3"),
        (
            _ENDLESS,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}},
            b"w3",
        ),
        (_ENDLESS, {"n": 2}, b"w3"),
        ({"events": [_CALLING] * 4_000, "interval_ms": 5}, {"tools": [_TOOL]}, b"tool_calls"),
        (_ENDLESS, {"tools": [_TOOL], "tool_choice": "required"}, b"w3"),
    ],
    ids=["JSON", "JSON schema", "n", "tool call under way", "tool call demanded"],
)
async def test_worker_killed_where_nothing_may_go_on(road, session, script, request_, marker):
    """An answer that its text alone does not carry over ends as an error to retry; the next question is answered."""
    body = b""
    killed = False
    async with asyncio.timeout(60), ask(road, session, script, **request_) as response:
        async for data in response.content.iter_any():
            body += data
            if marker in body and not killed:
                await kill_worker(road)
                killed = True
    assert killed
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    error = json.loads(events[-1])["error"]
    assert (error["code"], error["type"]) == ("stream_broken", "server_error")
    assert b'"finish_reason":"' not in body
    assert b"[DONE]" not in body
    await wait_hot(road)
    async with ask(road, session, {"tokens": 3}) as response:
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
