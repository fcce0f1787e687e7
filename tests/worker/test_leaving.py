"""How a worker leaves: told by a signal, told by hpc_dispatch, or after the one answer that it was started for."""

import asyncio
import time

import pytest
from gateway_hpc import lane
from worker.ear import ear

from stream_core.errors import StreamError

pytestmark = pytest.mark.process

SLOW = {"tokens": 40, "interval_ms": 25, "text": " {n}"}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Broker, relay and engine, started once for this file."""
    with lane.parts(tmp_path_factory.mktemp("leaving")) as running:
        yield running


@pytest.fixture
def parts(processes):
    """The same with a lease of its own for each test."""
    return processes.for_lease(lane.Lease())


async def ended(program) -> int:
    async with asyncio.timeout(60):
        return await asyncio.to_thread(program.process.wait)


@pytest.mark.parametrize("way", ["SIGTERM", "STOP"])
async def test_a_signal_and_a_stop_give_the_same_drain(parts, way):
    """What runs is answered to its end, what comes is refused as draining, and the exit code is 0."""
    with lane.worker(parts) as program:
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            await heard.until(lambda status: status.engine_ready)
            target = await lane.announced(parts)
            running = await lane.ask(gateway, target, SLOW)
            if way == "STOP":
                await heard.tell_to_stop(time.time_ns() // 1_000_000)
            else:
                program.process.terminate()
            draining = await heard.until(lambda status: status.draining)
            assert (draining.running, draining.failed) == (1, "")
            with pytest.raises(StreamError, match="takes no new requests"):
                await lane.ask(gateway, target, {"tokens": 1})
            got = await lane.read(running)
            assert b'" 39"' in got
            assert got.endswith(b"[DONE]\n\n")
            assert await ended(program) == 0


@pytest.mark.parametrize("end", ["complete", "cancelled", "refused by the engine"])
async def test_a_worker_for_one_request_ends_after_it(parts, end):
    """`max_requests: 1` is a job for each request: a second one is refused from the first's start on."""
    with lane.worker(parts, max_requests=1) as program:
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            await heard.until(lambda status: status.engine_ready)
            target = await lane.announced(parts)
            script = {"status": 400} if end == "refused by the engine" else SLOW
            first = await lane.ask(gateway, target, script)
            if end != "refused by the engine":
                with pytest.raises(StreamError, match="takes no new requests"):
                    await lane.ask(gateway, target, {"tokens": 1})
            if end == "cancelled":
                await first.aclose()
            else:
                assert await lane.read(first)
            assert await ended(program) == 0
            last = await heard.until(lambda status: status.draining)
            assert (last.served, last.failed) == (1, "")
