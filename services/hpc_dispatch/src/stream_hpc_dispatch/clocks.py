"""How long jobs wait and workers take to start, as measured, and what follows: when a lease is to be renewed. Pure.

    queue wait = from submission until the job was last seen waiting
    start-up   = from then until the worker was READY

A pool remembers the last 16 of both; plans are made with their 90th percentile, promises with their median. An
adopted pilot is no measure, nor is a start longer than its limit.
"""

import functools
import math
from typing import Final

from msgspec.structs import replace

from stream_hpc_dispatch.states import Limits, Phase, Pilot, PoolState

_KEPT: Final = 16
_CAREFUL: Final = 0.9
_USUAL: Final = 0.5
_SPARE_S: Final = 60.0
"""What a lease must offer beyond waiting and starting to be worth a job."""


def start_s(pool: PoolState) -> float:
    """How long it takes from submission to READY, carefully; 0 when nothing was measured."""
    return _share(pool.waits, _CAREFUL) + _share(pool.startups, _CAREFUL)


def usual_start_s(pool: PoolState) -> float:
    """How long it usually takes from submission to READY; 0 when nothing was measured."""
    return _share(pool.waits, _USUAL) + _share(pool.startups, _USUAL)


def usual_startup_s(pool: PoolState) -> float:
    """How long it usually takes from a job's start to READY; 0 when nothing was measured."""
    return _share(pool.startups, _USUAL)


def least_lease_s(pool: PoolState) -> float:
    """Below which a lease is not worth a job."""
    spec = pool.spec
    return (start_s(pool) if pool.startups else min(spec.start_limit_s, spec.walltime_s / 2)) + _SPARE_S


def ready_estimate(pool: PoolState) -> float | None:
    """When the next worker will probably be ready; None when nothing tells."""
    estimates = [at for pilot in pool.pilots if (at := _ready_estimate(pool, pilot)) is not None]
    return min(estimates, default=None)


def _ready_estimate(pool: PoolState, pilot: Pilot) -> float | None:
    if pilot.phase is not Phase.STARTING or pilot.stopping or not pool.startups:
        return None
    startup_s = usual_startup_s(pool)
    if not pilot.queued:
        return pilot.ran_from + startup_s
    if pilot.starts is not None:
        return pilot.starts + startup_s
    return pilot.submitted + _share(pool.waits, _USUAL) + startup_s if pool.waits else None


def renewal_margin_s(pool: PoolState, limits: Limits, lease_s: float) -> float:
    """How long before a lease's end its successor starts.

    Args:
        pool: with what it has measured.
        limits: the plan's clocks.
        lease_s: the whole lease; a short one spends at most half of itself on that.
    """
    measured_s = start_s(pool)
    careful_s = measured_s + pool.spec.queue_margin_s if measured_s else 0.0
    return min(max(limits.renew_before_s, careful_s), lease_s / 2)


def leaving(pilot: Pilot, pool: PoolState, limits: Limits, now: float) -> bool:
    """Whether a pilot's lease is so short that its successor is due."""
    lease_s = pilot.expires - pilot.submitted
    if now < pilot.expires - lease_s / 2:
        return False  # no margin is longer than that
    return now >= pilot.expires - renewal_margin_s(pool, limits, lease_s)


def counts(pilot: Pilot, pool: PoolState, limits: Limits, now: float) -> bool:
    """Whether a pilot is one of those that the pool wants; the others are on their way out."""
    alive = not pilot.stopping and (pilot.phase is Phase.READY or pilot.phase is Phase.STARTING)
    return alive and not leaving(pilot, pool, limits, now)


def has_run(pool: PoolState, pilot: Pilot) -> PoolState:
    """Take note that a pilot's job has left the queue; the first time that is a measurement."""
    if pilot.queued is False:
        return pool.with_pilot(pilot)
    if not pilot.adopted:
        pool = replace(pool, waits=(*pool.waits, pilot.ran_from - pilot.submitted)[-_KEPT:])
    return pool.with_pilot(replace(pilot, queued=False, position=None, starts=None, words=""))


def is_ready(pool: PoolState, pilot: Pilot, now: float) -> PoolState:
    """Take note that a pilot is READY; the first time that is a measurement."""
    if pilot.ready_at is not None:
        return pool.with_pilot(pilot)
    startup_s = 0.0 if pilot.adopted else now - pilot.ran_from
    if 0 < startup_s <= pool.spec.start_limit_s:
        pool = replace(pool, startups=(*pool.startups, startup_s)[-_KEPT:])
    return pool.with_pilot(replace(pilot, ready_at=now, startup_s=startup_s))


@functools.lru_cache(maxsize=1024)
def _share(measured: tuple[float, ...], share: float) -> float:
    """Nearest-rank percentile; asked for with every event, and new with a job's start only."""
    if not measured:
        return 0.0
    return sorted(measured)[math.ceil(share * len(measured)) - 1]
