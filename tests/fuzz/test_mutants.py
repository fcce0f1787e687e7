"""100,000 mutated frames against each end's live session: nothing but counters changes, and the next good frame counts.

The seed is fixed; set STREAM_FUZZ_SEED for another, STREAM_FUZZ_COUNT for more.
"""

import gc
import os
import sys
from collections import Counter

from fuzz.mutants import Mutator
from fuzz.targets import DispatchEnd, GatewayEnd, RelayEnd, WorkerEnd

SEED = int(os.environ.get("STREAM_FUZZ_SEED", "20261"))
COUNT = int(os.environ.get("STREAM_FUZZ_COUNT", "100000"))
BLOCK = 250
KINDS = 18
MAX_BLOCKS_GROWN = 6000


class Memory:
    """Objects alive more than at the start."""

    def __init__(self) -> None:
        gc.collect()
        self._before = sys.getallocatedblocks()

    def grown(self) -> int:
        gc.collect()
        return sys.getallocatedblocks() - self._before


def test_worker_desk():
    """At the worker's desk mutants are dropped; the running request keeps its window, its text and its end."""
    end = WorkerEnd()
    kinds: Counter[str] = Counter()
    memory = Memory()
    for block in range(COUNT * 35 // 100 // BLOCK):
        before = end.state()
        for kind, mutant in Mutator(SEED + block, end.seen, end.foreign).draw(BLOCK):
            kinds[kind] += 1
            end.take(mutant)
        assert end.state() == before
        end.take_good()
    assert len(kinds) == KINDS
    assert end.dropped >= sum(kinds.values()) * 0.95
    assert memory.grown() < MAX_BLOCKS_GROWN
    end.end()


async def test_gateway_channel():
    """At the gateway no mutant adds a byte to an answer, ends it, or fails it before the limit of forgeries."""
    end = GatewayEnd()
    await end.start()
    kinds: Counter[str] = Counter()
    sessions = 0
    memory = Memory()
    for block in range(COUNT * 30 // 100 // BLOCK):
        before = end.state()
        for kind, mutant in Mutator(SEED + block, end.seen, end.foreign).draw(BLOCK):
            if end.spent:
                assert end.state() == before
                await end.renew()
                sessions += 1
                before = end.state()
            kinds[kind] += 1
            await end.take(mutant)
        assert end.state() == before
        await end.take_good()
    assert len(kinds) == KINDS
    assert sessions > 0
    assert len(end.channel._outbox) < COUNT
    end.channel._outbox.clear()
    assert memory.grown() < MAX_BLOCKS_GROWN
    await end.renew()


def test_relay_route():
    """At the relay a mutant closes its own socket with a reason, or goes to the gateway that it names."""
    end = RelayEnd()
    memory = Memory()
    for block in range(COUNT * 20 // 100 // BLOCK):
        for _, mutant in Mutator(SEED + block, end.seen, end.foreign).draw(BLOCK):
            end.take(mutant)
        end.take_good()
    assert set(end.closed) == {"malformed"}
    assert end.passed > 0
    assert memory.grown() < MAX_BLOCKS_GROWN


def test_relay_before_hello():
    """Without HELLO nothing but the very HELLO admits; a mutant of it closes the socket."""
    end = RelayEnd()
    closed: Counter[str] = Counter()
    hello = end.seen[0]
    for kind, mutant in Mutator(SEED, [hello], end.foreign[1:]).draw(COUNT * 2 // 100):
        actions = end.fresh().receive(mutant, now=1_763_650_000.0)
        if mutant[48:] != hello[48:] or mutant[1] != hello[1]:
            assert [type(action).__name__ for action in actions] == ["Close"], kind
            closed[actions[0].kind] += 1
    assert set(closed) == {"malformed", "ticket"}


def test_dispatch_leases():
    """At hpc_dispatch no mutant proves life, changes a key or ends a lease; the next heartbeat is heard."""
    end = DispatchEnd()
    memory = Memory()
    for block in range(COUNT * 15 // 100 // BLOCK):
        before = end.state()
        for _, mutant in Mutator(SEED + block, end.seen, end.foreign).draw(BLOCK):
            end.take(mutant)
        assert end.state() == before
        end.take_good()
    assert {"malformed", "unexpected_frame", "wrong_subject", "bad_announcement", "bad_status"} <= set(end.counts)
    assert memory.grown() < MAX_BLOCKS_GROWN
