"""Ending requests from outside: a cut is told apart from any other cancellation; a drain waits, then cuts."""

import asyncio

import pytest

from stream_core.errors import UpstreamUnavailable
from stream_gateway.lifeline import ClientGone, Running

STOPPED = UpstreamUnavailable("stopped")


async def request(running: Running, began: asyncio.Event, may_end: asyncio.Event) -> object:
    with running.enter() as lifeline:
        began.set()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            if lifeline.caught() is None:
                raise
            return lifeline.cause
        return "complete"


async def test_a_drain_waits_for_what_runs() -> None:
    """A request that ends within the grace time is not cut."""
    running, began, may_end = Running(), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(request(running, began, may_end))
    await began.wait()
    draining = asyncio.create_task(running.drain(30, STOPPED))
    may_end.set()
    assert await draining == 0
    assert await task == "complete"


async def test_a_drain_cuts_what_is_late() -> None:
    """What still runs after the grace time learns why it ends, and its task goes on to say so."""
    running, began = Running(), asyncio.Event()
    task = asyncio.create_task(request(running, began, asyncio.Event()))
    await began.wait()
    assert len(running) == 1
    assert await running.drain(0.01, STOPPED) == 1
    assert await task is STOPPED
    assert len(running) == 0


async def test_an_empty_gateway_drains_at_once() -> None:
    """Nothing runs, nothing is waited for."""
    assert await Running().drain(30, STOPPED) == 0


async def test_other_cancellations_stay_cancellations() -> None:
    """A task cancelled by somebody else is not mistaken for a cut."""
    running, began = Running(), asyncio.Event()
    task = asyncio.create_task(request(running, began, asyncio.Event()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_first_cause_counts() -> None:
    """A client that leaves while the gateway stops has left."""
    running = Running()

    async def cut_twice() -> object:
        with running.enter() as lifeline:
            gone = ClientGone()
            lifeline.cut(gone)
            lifeline.cut(STOPPED)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(1)
            return lifeline.caught() is gone

    assert await asyncio.create_task(cut_twice())


def test_why_no_request_is_taken() -> None:
    """What a start waits for is said until it is there; at the end, that it drains."""
    running = Running()
    assert running.why_not() is None
    running.opening = "waiting for hpc_dispatch"
    assert running.why_not() == "waiting for hpc_dispatch"
    running.closing = True
    assert running.why_not() == "draining"
