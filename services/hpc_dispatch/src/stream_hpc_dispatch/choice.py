"""Which of several clusters starts a worker for a model that any of them may serve. Pure.

In this order: it can (its cluster is online, its failures and budget let it start, or it has workers); it is not full,
else these requests wait there already; it has a worker that is ready, else one that starts; its last starts did not
fail; its cluster's priority; how long a start usually takes there; the order of `stream.yaml`.
"""

from stream_hpc_dispatch import clocks, scaling
from stream_hpc_dispatch.states import Limits, Phase, PoolKey, PoolState, State


def choose(state: State, model: str, now: float, *, waiting: int = 0, gateway: str = "") -> PoolKey:
    """Choose the pool that is asked for a worker.

    Args:
        state: the plan's.
        model: the name users see.
        now: unix seconds.
        waiting: requests that wait for it.
        gateway: whose they are; its count before this one does not count.

    Raises:
        LookupError: no pool offers it.
    """
    fitting = [pool for pool in state.pools if pool.spec.key.model == model]
    if not fitting:
        raise LookupError(f"no pool of model {model!r}")

    def rank(pool: PoolState) -> tuple[float, ...]:
        others = scaling.ask(pool, gateway, anywhere=True, waiting=0, now=now)
        asked = scaling.asked(others, state.limits, now) + waiting
        return _rank(state, others, now, asked=asked, holds=others is not pool)

    return min(fitting, key=rank).spec.key


def _rank(state: State, pool: PoolState, now: float, *, asked: int, holds: bool) -> tuple[float, ...]:
    cluster = state.cluster(pool.spec.key.cluster)
    phases = [pilot.phase for pilot in pool.pilots if not pilot.stopping]
    there = 0 if Phase.READY in phases else 1 if Phase.STARTING in phases else 2
    may_start = cluster.online and not pool.blocked and now >= pool.retry_at
    can = there == 0 or (cluster.online and there == 1) or may_start
    full = not may_start or _is_full(pool, asked, state.limits, now)
    return (
        not can,
        full,
        full and not holds,
        there,
        pool.failures > 0,
        -cluster.spec.priority,
        clocks.usual_start_s(pool),
    )


def _is_full(pool: PoolState, asked: int, limits: Limits, now: float) -> bool:
    """Whether all workers that it may have are there and have what they can take, those who wait included."""
    counting = [pilot for pilot in pool.pilots if clocks.counts(pilot, pool, limits, now)]
    places = pool.spec.max_workers * pool.spec.max_requests
    load = sum(pilot.load for pilot in counting) + asked
    return len(counting) >= pool.spec.max_workers and load >= places * pool.spec.target_load
