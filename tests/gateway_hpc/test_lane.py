"""The sealed lane with real parts: broker, relay, worker and engine as processes, the gateway's channel here."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from gateway_hpc import lane

from stream_core.errors import StreamBroken, UpstreamTimeout, UpstreamUnavailable
from stream_core.testing.programs import Program
from stream_gateway.channel import Channel
from stream_gateway.pool import PooledWorker
from stream_gateway.sealed_answer import Patience

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Iterator[lane.Parts]:
    """Broker, relay and engine, started once for this file."""
    with lane.parts(tmp_path_factory.mktemp("lane")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(parts) -> Iterator[Program]:
    """A worker on that relay."""
    with lane.worker(parts) as program:
        yield program


@pytest.fixture
async def target(parts, worker) -> PooledWorker:
    """The worker as the pool holds it."""
    return await lane.announced(parts)


@pytest.fixture
async def gateway(parts) -> AsyncIterator[Channel]:
    """A gateway's channel."""
    async with lane.channel(parts.nats_url) as channel:
        yield channel


async def ask_engine(parts, script, **request) -> bytes:
    """The same question, put to the engine itself."""
    body = {"model": "scripted", "stream": True, "messages": [], "script": script, **request}
    url = f"{parts.engine_url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return await response.read()


async def engine_requests(parts, *, aborted: int | None = None) -> list[dict]:
    """What the engine has seen; with `aborted`, as soon as so many requests were aborted."""
    path = "/requests" if aborted is None else f"/events?aborted={aborted}"
    async with aiohttp.ClientSession() as session, session.get(parts.engine_url + path) as response:
        return await response.json()


@pytest.mark.parametrize(
    ("script", "request_"),
    [
        ({"tokens": 50}, {}),
        ({"tokens": 500, "per_write": 0}, {"stream_options": {"include_usage": True}}),
        ({"tokens": 3}, {"stream": False}),
        ({"events": ['{"tool":"\\u00e9 \\ud83d\\ude00"}', " spaced ", "x" * 300_000, "[DONE]"]}, {}),
        ({"body": json.dumps({"embedding": [0.125] * 60_000})}, {"stream": False}),
    ],
    ids=["tokens", "coalesced with usage", "whole", "odd and long events", "a long body"],
)
async def test_bytes_are_the_engines_own(parts, gateway, target, script, request_):
    """What comes out of the lane is byte for byte what the engine says when asked directly."""
    answer = await lane.ask(gateway, target, script, **request_)
    assert await lane.read(answer) == await ask_engine(parts, script, **request_)


async def test_events_stay_whole(gateway, target):
    """Each chunk of a stream is one whole event, so that an error event can be put between any two."""
    answer = await lane.ask(gateway, target, {"tokens": 100, "per_write": 7})
    chunks = [chunk async for batch in answer for chunk in batch]
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert len(chunks) == 103


async def test_large_request(parts, gateway, target):
    """A request of 5 MB travels in parts and reaches the engine whole."""
    text = "0123456789" * 500_000
    await lane.read(await lane.ask(gateway, target, {"tokens": 1}, padding=text))
    assert (await engine_requests(parts))[-1]["body"]["padding"] == text


async def test_request_past_the_workers_limit(gateway, target):
    """A request past the worker's limit is refused with both numbers, and the worker lives on."""
    with pytest.raises(StreamBroken, match=r"at most 67,108,864"):
        await lane.ask(gateway, target, {"tokens": 1}, padding="x" * 68_000_000)
    assert await lane.read(await lane.ask(gateway, target, {"tokens": 1}))


@pytest.mark.parametrize("status", [400, 422, 500])
async def test_engines_own_error(gateway, target, status):
    """An error of the engine arrives with its status and body."""
    answer = await lane.ask(gateway, target, {"status": status})
    assert answer.head is not None
    assert answer.head.status == status
    assert json.loads(await lane.read(answer))["error"]["code"] == "scripted"


async def test_stream_cut_short_is_an_error(gateway, target):
    """An engine that dies in mid-answer is an error after what it said, never a quiet end."""
    answer = await lane.ask(gateway, target, {"tokens": 50, "cut": 10})
    got = b""
    with pytest.raises(StreamBroken, match="engine"):
        async for batch in answer:
            got += b"".join(batch)
    assert got.count(b"\n\n") == 10


async def test_client_leaves(parts, gateway, target):
    """Closing an answer aborts the engine's request and leaves nothing on any hop."""
    before = sum(request["ended"] == "aborted" for request in await engine_requests(parts))
    answer = await lane.ask(gateway, target, {"tokens": 100_000, "interval_ms": 5})
    async for _ in answer:
        break
    await answer.aclose()
    async with asyncio.timeout(60):
        seen = await engine_requests(parts, aborted=before + 1)
    assert seen[-1]["ended"] == "aborted"
    assert gateway.running_on(target.lease_id) == 0


async def test_silent_engine_times_out(parts, gateway, target):
    """An engine that sends headers and then nothing is given up within the tier's limit, and aborted."""
    before = sum(request["ended"] == "aborted" for request in await engine_requests(parts))
    async with lane.channel(parts.nats_url, Patience(tick=0.05)) as impatient:
        answer = await lane.ask(impatient, target, {"hang": True})
        answer._idle_timeout_s = 0.2
        with pytest.raises(UpstreamTimeout, match=r"nothing for 0\.2 s"):
            await lane.read(answer)
        await engine_requests(parts, aborted=before + 1)


async def test_nobody_there(parts, gateway, target):
    """A worker that is on no relay is noticed by the missing acceptance, and the error says what it may be."""
    async with lane.channel(parts.nats_url, Patience(resend_open=(0.05, 0.05))) as impatient:
        absent = PooledWorker(b"a" * 16, "test", {}, {}, target.key, target.open_secret, 1)
        with pytest.raises(UpstreamUnavailable, match=r"did not accept within 0\.1 s"):
            await lane.ask(impatient, absent, {})


async def test_64_clients_and_a_slow_reader(parts, gateway, target):
    """One reader that does not read stops its own stream within its window; 63 others get all of theirs."""
    tokens = 100_000  # 17 MB: more than all socket buffers on the way
    slow = await lane.ask(gateway, target, {"tokens": tokens, "text": "slow", "per_write": 64}, window=64 * 1024)

    async def quick(number: int) -> int:
        answer = await lane.ask(gateway, target, {"tokens": 200, "text": f"q{number}", "per_write": 8})
        return (await lane.read(answer)).count(f"q{number}".encode())

    async with asyncio.timeout(60):
        assert await asyncio.gather(*(quick(number) for number in range(63))) == [200] * 63
    # The slow one has a window in this process, and what fits the sockets between worker and engine, no more.
    assert sum(map(len, slow._chunks)) <= 64 * 1024 + lane.MAX_PAYLOAD
    (held,) = [r for r in await engine_requests(parts) if r["body"]["script"].get("text") == "slow"]
    assert held["ended"] is None
    async with asyncio.timeout(60):
        assert (await lane.read(slow)).count(b'"slow"') == tokens


async def test_worker_killed_is_noticed(parts):
    """A worker killed in mid-answer is an error for its client once the pool says so, never a quiet end."""
    other = lane.Lease()
    running = parts.for_lease(other)
    with lane.worker(running) as program:
        mine = await lane.announced(running)
        async with lane.channel(parts.nats_url) as gateway:
            answer = await lane.ask(gateway, mine, {"tokens": 100_000, "interval_ms": 5})
            batches = aiter(answer)
            await anext(batches)
            program.process.kill()
            gateway.lost(other.id)
            with pytest.raises(StreamBroken, match="the worker was lost"):
                async for _ in batches:
                    pass


def test_worker_without_a_job():
    """Without a job the worker says so in one line and exits with 1."""
    with (
        pytest.raises(RuntimeError, match=r"(?s)exit code 1.*stream-worker: job: the job on standard input"),
        lane.programs.start("stream_worker", stdin=b"{}"),
    ):
        pass


def test_worker_refuses_a_plain_relay_elsewhere(parts):
    """ws:// to another machine would show the ticket to the network: refused before anything is sent."""
    with (
        pytest.raises(RuntimeError, match=r"must be wss://"),
        lane.worker(parts, relay_url="ws://relay.example.org"),
    ):
        pass


async def test_sigterm_lets_a_running_answer_finish(parts):
    """A worker told to stop finishes what it has, refuses what is new, and exits with 0."""
    other = lane.Lease()
    running = parts.for_lease(other)
    with lane.worker(running) as program:
        mine = await lane.announced(running)
        async with lane.channel(parts.nats_url) as gateway:
            answer = await lane.ask(gateway, mine, {"tokens": 100, "interval_ms": 10})
            program.process.terminate()
            with pytest.raises(UpstreamUnavailable, match=r"no new requests|did not accept"):
                while True:
                    await lane.read(await lane.ask(gateway, mine, {"tokens": 1}))
            assert (await lane.read(answer)).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(program.process.wait, 20) == 0
