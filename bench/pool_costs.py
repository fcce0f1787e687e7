"""What hpc_dispatch's leader and a gateway spend on telling the pool, by the number of workers; in one process."""

import time
from collections.abc import Callable
from pathlib import Path

from stream_core.envelope.keys import WorkerKey
from stream_core.settings import TlsFiles
from stream_core.wire.payloads import Announcement, ModelOffer
from stream_gateway.pool import PoolWatch
from stream_hpc_dispatch.changes import changes
from stream_hpc_dispatch.leases import Lease
from stream_hpc_dispatch.plan import ClusterSpec, ClusterState, Phase, Pilot, PoolKey, PoolSpec, PoolState, State
from stream_hpc_dispatch.pool import snapshot

WORKERS = 400
ROUNDS = 9


def _state(*, running: int) -> State:
    """A pool whose workers have all a new load."""
    pilots = tuple(
        Pilot(number, Phase.READY, 0.0, 1e9, announced=True, running=(running + number) % 64, first_token_ms=40.0)
        for number in range(WORKERS)
    )
    spec = PoolSpec(PoolKey("here", "model"), 1, WORKERS, 86_400, 600)
    return State((PoolState(spec, pilots),), clusters=(ClusterState(ClusterSpec("here")),))


def _least_us(work: Callable[[], object]) -> float:
    """CPU microseconds for each worker, the least of some rounds: what else the machine does only adds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return round(min(taken) * 1e6 / WORKERS, 2)


def pool_costs() -> dict[str, float]:
    """Measure: microseconds and bytes for each worker whose load has changed."""
    key = WorkerKey().public
    leases = []
    for number in range(WORKERS):
        lease = Lease(number.to_bytes(16, "big"), number, bytes(32))
        lease.announcement = Announcement(key.mlkem768, key.x25519, [ModelOffer("model", "engine/model", 32_768)], 64)
        leases.append(lease)
    states = [_state(running=running) for running in (1, 2)]

    def draw(state: State) -> object:
        return snapshot(state, leases.__getitem__, lambda _: [])

    first, second = (snapshot(state, leases.__getitem__, lambda _: []) for state in states)
    change = changes(first, second)
    tls = TlsFiles(ca=Path(), certificate=Path(), key=Path())
    gateway = PoolWatch("", tls, bytes(16))
    gateway._take(first)  # noqa: SLF001  (as its own watch does)
    return {
        "draw_us_per_worker": _least_us(lambda: draw(states[1])),
        "compare_us_per_worker": _least_us(lambda: changes(first, second)),
        "serialize_us_per_change": _least_us(change.SerializeToString),
        "take_us_per_change": _least_us(lambda: gateway._take(change)),  # noqa: SLF001
        "bytes_per_worker": round(first.ByteSize() / WORKERS),
        "bytes_per_change": round(change.ByteSize() / WORKERS),
    }


if __name__ == "__main__":
    print(pool_costs())
