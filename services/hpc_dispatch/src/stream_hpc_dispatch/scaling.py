"""How many workers a pool should have. Pure.

    load     = running + waiting in the engine, over all READY pilots
    asked    = requests that wait at gateways: each one's newest count, for `ask_lasts_s`, less what began since
    need     = the largest of
                 floor(load / (`target_load` x `max_requests`)) + 1, when there is load; with `max_requests` 1: load
                 READY + 1, when the engines' caches are nine tenths full
                 READY + ceil((asked - free places) / `max_requests`), when the free places don't do
                 1, when somebody asks
    held     = the largest need of the last `idle_timeout_s`
    wanted   = the larger of `min_ready`, 1 when a cold pool was requested, need; at most `max_workers`. A pilot that
               leaves is succeeded as long as it is held
    surplus  = pilots that count beyond `min_ready`, a request and held

Workers on their way count as much as those that are there, so one burst does not start too many. Of the surplus,
first jobs that still queue are taken back, the newest first; then READY pilots retire, idle ones first, of those the
one with the least lease left; none before it was READY for `idle_timeout_s` and for as long as it took to start.
"""

import math
from typing import Final

from msgspec.structs import replace

from stream_hpc_dispatch.clocks import counts, leaving
from stream_hpc_dispatch.states import Ask, Limits, Need, Phase, Pilot, PoolState

_CACHE_FULL: Final = 0.9
_ROUNDING: Final = 1e-9


def ask(pool: PoolState, gateway: str, *, anywhere: bool, waiting: int, now: float) -> PoolState:
    """Put a gateway's newest count in the place of the one before."""
    others = tuple(one for one in pool.asks if (one.gateway, one.anywhere) != (gateway, anywhere))
    asks = (*others, Ask(gateway, anywhere, waiting, now, pool.begun)) if waiting else others
    return pool if asks == pool.asks else replace(pool, asks=asks)


def forget_old_asks(pool: PoolState, limits: Limits, now: float) -> PoolState:
    """Drop counts that were not repeated."""
    if all(now - one.at < limits.ask_lasts_s for one in pool.asks):
        return pool
    return replace(pool, asks=tuple(one for one in pool.asks if now - one.at < limits.ask_lasts_s))


def begin(pool: PoolState, requests: int, now: float) -> PoolState:
    """Take note of requests that a worker has begun: they wait no longer, and the pool is in use."""
    if requests <= 0:
        return pool
    return _remember(replace(pool, begun=pool.begun + requests), 1, now)


def asked(pool: PoolState, limits: Limits, now: float) -> int:
    """Count the requests that wait at gateways."""
    fresh = (one for one in pool.asks if now - one.at < limits.ask_lasts_s)
    return sum(max(0, one.waiting - (pool.begun - one.begun)) for one in fresh)


def busy_need(pool: PoolState) -> int:
    """Workers that the requests under way need."""
    spec = pool.spec
    ready = _ready(pool)
    load = sum(pilot.load for pilot in ready)
    if not load:
        return 0
    if spec.max_requests == 1:
        return min(load, spec.max_workers)
    need = math.floor(load / (spec.target_load * spec.max_requests) + _ROUNDING) + 1
    caches = [pilot.cache_use for pilot in ready if pilot.cache_use is not None]
    if caches and sum(caches) / len(caches) >= _CACHE_FULL:
        need = max(need, len(ready) + 1)
    return min(need, spec.max_workers)


def need(pool: PoolState, limits: Limits, now: float) -> int:
    """Workers that are needed now, those on their way included."""
    spec = pool.spec
    needed = busy_need(pool)
    waiting = asked(pool, limits, now)
    if waiting:
        ready = _ready(pool)
        unmet = waiting - sum(max(0, spec.max_requests - pilot.load) for pilot in ready)
        needed = max(needed, 1, len(ready) + math.ceil(unmet / spec.max_requests) if unmet > 0 else 0)
    return min(needed, spec.max_workers)


def remember(pool: PoolState, limits: Limits, now: float) -> PoolState:
    """Note what is needed now, and forget what was needed long ago."""
    return _remember(pool, need(pool, limits, now), now)


def _remember(pool: PoolState, needed: int, now: float) -> PoolState:
    """Keep the maxima of the window, as `needs` says."""
    since = now - pool.spec.idle_timeout_s
    kept = tuple(one for one in pool.needs if one.workers > needed and one.at > since)
    needs = (*kept, Need(now, needed)) if needed else kept
    return pool if needs == pool.needs else replace(pool, needs=needs)


def held(pool: PoolState) -> int:
    """Workers that were needed at once within `idle_timeout_s`."""
    return pool.needs[0].workers if pool.needs else 0


def missing(pool: PoolState, limits: Limits, now: float) -> int:
    """Workers to start, as far as the pool's room allows; below 0 none."""
    spec = pool.spec
    counting = sum(counts(pilot, pool, limits, now) for pilot in pool.pilots)
    going = [pilot for pilot in pool.pilots if leaving(pilot, pool, limits, now)]
    wanted = max(spec.min_ready, int(pool.requested), need(pool, limits, now))
    if spec.max_requests > 1:
        staying = sum(not pilot.retiring and not pilot.stopping for pilot in going)
        wanted = max(wanted, min(held(pool), counting + staying))
    room = spec.max_workers + min(spec.renewal_surge, len(going)) - len(pool.pilots)
    return min(wanted - counting, room)


def relieved(pool: PoolState, pilot: Pilot, limits: Limits, now: float) -> bool:
    """Whether others take a leaving pilot's new requests."""
    if not leaving(pilot, pool, limits, now):
        return False
    ready = sum(counts(other, pool, limits, now) for other in _ready(pool))
    return ready >= max(pool.spec.min_ready, 1, busy_need(pool))


def recall(pool: PoolState, limits: Limits, now: float) -> PoolState:
    """Take retiring pilots back instead of starting others."""
    if not any(pilot.retiring for pilot in pool.pilots):
        return pool
    lacking = max(pool.spec.min_ready, int(pool.requested), need(pool, limits, now))
    lacking -= sum(counts(pilot, pool, limits, now) for pilot in pool.pilots)
    for pilot in pool.pilots:
        if lacking > 0 and pilot.retiring and not pilot.stopping and pilot.phase is Phase.DRAINING:
            back = replace(pilot, retiring=False, phase=Phase.READY, since=now)
            pool = replace(pool.with_pilot(back), requested=False)
            lacking -= counts(back, pool, limits, now)
    return pool


def surplus(pool: PoolState, limits: Limits, now: float) -> tuple[list[Pilot], list[Pilot]]:
    """Choose the pilots that nobody needs.

    Returns:
        Those whose jobs are to be taken back from the queue, and those that are to retire.
    """
    spec = pool.spec
    least = max(spec.min_ready, int(pool.requested), held(pool))
    if len(pool.pilots) <= least:
        return [], []
    counting = [pilot for pilot in pool.pilots if counts(pilot, pool, limits, now)]
    beyond = len(counting) - least
    if beyond <= 0:
        return [], []
    long_s = spec.idle_timeout_s
    queued = [
        pilot
        for pilot in counting
        if pilot.phase is Phase.STARTING and pilot.queued and now - pilot.submitted >= long_s
    ]
    queued.sort(key=lambda pilot: -pilot.number)
    old = [
        pilot
        for pilot in counting
        if pilot.phase is Phase.READY
        and pilot.ready_at is not None
        and now - pilot.ready_at >= max(long_s, pilot.startup_s)
    ]
    old.sort(key=lambda pilot: (pilot.load > 0, pilot.expires))
    back = queued[:beyond]
    return back, old[: beyond - len(back)]


def _ready(pool: PoolState) -> list[Pilot]:
    return [pilot for pilot in pool.pilots if pilot.phase is Phase.READY and not pilot.stopping]
