"""A gateway that is told changes of the pool knows what one knows that is told all of it, each time."""

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.envelope.keys import WorkerKey
from stream_core.rpc import common_pb2
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.settings import TlsFiles
from stream_gateway.pool import PoolWatch
from stream_hpc_dispatch.changes import changes
from stream_hpc_dispatch.desk import Desk

TLS = TlsFiles(ca=Path("ca"), certificate=Path("certificate"), key=Path("key"))
KEYS = [(b"", b""), *((key.public.mlkem768, key.public.x25519) for key in (WorkerKey(), WorkerKey()))]
BAD = (b"short", b"\x01" * 32)
STATES = [pb.WORKER_STATE_STARTING, pb.WORKER_STATE_READY, pb.WORKER_STATE_DRAINING, pb.WORKER_STATE_LOST]


@st.composite
def workers(draw, lease_id):
    mlkem768, x25519 = draw(st.sampled_from([*KEYS, BAD]))
    return pb.Worker(
        lease_id=lease_id,
        cluster=draw(st.sampled_from(["north", "south"])),
        state=draw(st.sampled_from(STATES)),
        models=[common_pb2.Model(id=draw(st.sampled_from(["a", "b"])), context_window=4096)],
        mlkem768_public=mlkem768,
        x25519_public=x25519,
        open_secret=b"\x02" * 32,
        max_requests=draw(st.integers(1, 2)),
        running=draw(st.integers(0, 2)),
        waiting=draw(st.integers(0, 1)),
        first_token_ms=draw(st.sampled_from([0.0, 12.5])),
        expires_unix_ms=draw(st.integers(0, 1)),
    )


@st.composite
def pools(draw):
    found = [draw(workers(lease)) for lease in (b"1" * 16, b"2" * 16, b"3" * 16) if draw(st.booleans())]
    models = [pb.ModelState(id="a", cluster="north", state=draw(st.sampled_from(["hot", "cold"])))]
    return pb.Pool(workers=found, models=models, clusters=[pb.ClusterState(name="north", online=draw(st.booleans()))])


class Gateway:
    """A watch without a connection, and what it said was lost."""

    def __init__(self) -> None:
        self.watch = PoolWatch("nowhere", TLS, bytes(16))
        self.lost: list[bytes] = []
        self.watch.on_lost.append(self.lost.append)

    def take(self, pool):
        self.lost.clear()
        self.watch._take(pool)
        snapshot = self.watch.snapshot
        # The library's keys compare by identity; which one it is, the watch remembers.
        names = {id(key): x25519 for (_, x25519), key in self.watch._keys.items()}
        workers = {lease: (replace(known, key=None), names[id(known.key)]) for lease, known in snapshot.workers.items()}
        return workers, snapshot.states, snapshot.alive, snapshot.clusters, sorted(self.lost)


@settings(deadline=None)
@given(st.lists(pools(), min_size=2, max_size=6))
def test_both_know_the_same(sequence):
    """Whatever the pools are, one after the other: workers, keys, loads, states, and who was lost on the way."""
    by_change, whole = Gateway(), Gateway()
    assert by_change.take(sequence[0]) == whole.take(sequence[0])
    for before, now in itertools.pairwise(sequence):
        assert by_change.take(changes(before, now)) == whole.take(now)


def loaded(running, *, workers=3):
    mlkem768, x25519 = KEYS[1]
    made = [
        pb.Worker(lease_id=bytes([n]) * 16, state=pb.WORKER_STATE_READY, mlkem768_public=mlkem768, x25519_public=x25519)
        for n in range(workers)
    ]
    made[0].running = running
    return pb.Pool(revision=running, workers=made)


def test_load_alone_is_small():
    """What one worker's status changes is told without keys, and nothing of the others."""
    change = changes(loaded(1), loaded(2))
    assert [(worker.told, worker.running) for worker in change.workers] == [(True, 2)]
    assert change.ByteSize() < 60 < loaded(2).ByteSize() / 60


class Source:
    """Stands in for what leads: publishes what the test says."""

    def __init__(self) -> None:
        self.pools: asyncio.Queue[pb.Pool] = asyncio.Queue()

    async def watch(self):
        while True:
            yield await self.pools.get()


@pytest.mark.parametrize("as_changes", [False, True], ids=["whole", "changes"])
async def test_the_first_pool_of_a_watch_is_whole(as_changes):
    """Then a change for who asked for changes; a watcher that missed some gets what differs from what it saw."""
    desk, source = Desk(TLS, "hpc_dispatch"), Source()
    leading = asyncio.create_task(desk.lead(source))
    quick, slow = (desk.watch(as_changes=as_changes) for _ in range(2))
    gateways = [Gateway(), Gateway()]
    for number in range(1, 4):
        source.pools.put_nowait(loaded(number, workers=number))
        pool = await anext(quick)
        assert pool.change is (as_changes and number > 1)
        seen = gateways[0].take(pool)
        if number != 2:
            pool = await anext(slow)
            assert pool.revision == number
            assert gateways[1].take(pool) == seen
    leading.cancel()
    desk.close()
