"""What to do about the pilots of every pool. Pure: `step(state, event)` gives the next state and the actions.

A pool is one model on one cluster; a pilot is one job of it, from the moment it is to be started until its job ended.

    phase    | meaning                            | leaves it by
    ---------+------------------------------------+------------------------------------------------------------------
    STARTING | no engine that answers yet         | StatusSeen ready -> READY, draining -> DRAINING
             |                                    | `start_limit_s` over: StopJob, failure
    READY    | takes requests                     | StatusSeen not ready -> STARTING, draining -> DRAINING
             |                                    | Announced with a new key (restarted) -> STARTING
             |                                    | renewal margin reached and relieved -> DRAINING
    DRAINING | finishes what it has               | JobEnded; one that was relieved: its relief gone -> READY
    LOST     | no STATUS for `lost_after_s`       | StatusSeen -> what the status says
             |                                    | `remove_after_s` more: StopJob, failure

    Any phase that has sent a STATUS becomes LOST by silence; STARTING and READY become DRAINING when the lease ends.
    A pilot whose lease ended `expiry_grace_s` ago gets StopJob. After StopJob a pilot is `stopping`: its phase only
    goes on to be shown, and JobEnded removes it. JobEnded of a pilot that was not stopping and not about to be
    renewed is a failure. While the broker is away silence proves nothing: then the clocks of silence stand still.

    A pilot comes in by StartJob, as STARTING, or by Adopted, as an earlier run of this program left it:

      left as  | becomes                                          | unless it is not wanted any more, or one too many
      ---------+--------------------------------------------------+----------------------------------------------------
      READY    | READY, and has `lost_after_s` to speak           | the same phase, and StopJob
      DRAINING | DRAINING, likewise                               |
      others   | STARTING, from now; likewise if it had announced |

    After every event each pool is filled:
      wanted   = min_ready, or 1 when a request asked for a cold model
      counting = STARTING or READY, not stopping, lease longer than the renewal margin
      relieved = as many READY pilots count as are wanted: then those in their renewal margin get no new requests
      leaving  = lease not longer than the renewal margin
      room     = `max_workers` jobs, and up to `renewal_surge` more, one for each that is leaving
      start      wanted - counting pilots, as far as there is room, none before `retry_at`, and after a failure one
                 at a time

    A failure sets `retry_at` to 0.5 s, 1 s, 2 s .. 60 s from now; READY resets that. Without room for a renewal the
    successor starts when the old one has ended.

`now` is in unix seconds, everywhere.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from stream_hpc_dispatch import reasons

_MAX_DOUBLINGS: Final = 32


class PoolKey(NamedTuple):
    """Names a pool."""

    cluster: str
    model: str


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What the deployment asks of one pool."""

    key: PoolKey
    min_ready: int
    max_workers: int
    walltime_s: float
    start_limit_s: float
    renewal_surge: int = 0
    """Jobs above `max_workers` while leases are renewed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The clocks of the plan, in seconds."""

    lost_after_s: float = 10.0
    remove_after_s: float = 30.0
    renew_before_s: float = 120.0
    expiry_grace_s: float = 30.0
    backoff_first_s: float = 0.5
    backoff_last_s: float = 60.0


class Phase(Enum):
    """Where a pilot is; the table above."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Pilot:
    """One job of a pool."""

    number: int
    phase: Phase
    since: float
    """When it came into this phase."""
    expires: float
    seen: float | None = None
    """Its last STATUS."""
    announced: bool = False
    running: int = 0
    note: str = ""
    """The worker's own words about its engine."""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool: what is asked, what is there, and how starting went."""

    spec: PoolSpec
    pilots: tuple[Pilot, ...] = ()
    requested: bool = False
    """A gateway asked for a worker and none counts yet."""
    failures: int = 0
    """In a row, without a READY between them."""
    retry_at: float = 0.0
    reason: str = ""
    """Of the last failure, in words."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything the plan knows."""

    pools: tuple[PoolState, ...]
    limits: Limits = Limits()
    next_number: int = 1
    stopping: bool = False

    def pool(self, key: PoolKey) -> PoolState:
        """Find a pool; `LookupError` when there is none of that name."""
        for pool in self.pools:
            if pool.spec.key == key:
                return pool
        raise LookupError(f"no pool {key}")


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by. `listening`: the broker is connected, so that a worker's silence means something."""

    now: float
    listening: bool = True


@dataclass(frozen=True, slots=True)
class Adoptee:
    """A pilot that an earlier run of this program started; its job runs."""

    pilot: int
    key: PoolKey
    expires: float
    phase: Phase
    announced: bool
    wanted: bool = True
    """Whether it serves what its pool is to serve, and was not being stopped."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """All pilots of an earlier run, at once, so that nothing is started for what is there."""

    now: float
    pilots: tuple[Adoptee, ...]


@dataclass(frozen=True, slots=True)
class Announced:
    """A pilot proved its key. `restarted`: another key than before, so another process under the same lease."""

    now: float
    pilot: int
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """A pilot's heartbeat."""

    now: float
    pilot: int
    engine_ready: bool = True
    draining: bool = False
    running: int = 0
    note: str = ""
    failed: str = ""
    """Why it is about to end before its time."""
    waiting: int = 0
    cache_use: float | None = None
    first_token_ms: float | None = None
    served: int = 0


@dataclass(frozen=True, slots=True)
class JobSeen:
    """Where a pilot's job stands on its cluster, while its worker has not spoken."""

    now: float
    pilot: int
    queued: bool
    position: int | None = None
    starts: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """Whether a cluster takes jobs."""

    now: float
    cluster: str
    online: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A pilot's job is over."""

    now: float
    pilot: int
    exit_code: int | None
    """None: not known."""
    tail: str = ""
    """The end of its log; of one that never started, why."""
    started: bool = True
    reason: str = ""
    """The cluster's own words for its end."""


@dataclass(frozen=True, slots=True)
class Requested:
    """A gateway wants a worker of a pool that has none, or too few."""

    now: float
    key: PoolKey
    waiting: int = 0
    """Requests of that gateway that wait now; its newest count replaces the one before."""
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """This program ends: no new job, every job stopped."""

    now: float


Event = Tick | Adopted | Announced | StatusSeen | JobSeen | ClusterSeen | JobEnded | Requested | StopRequested


@dataclass(frozen=True, slots=True)
class StartJob:
    """Start a job for this pilot; its end is always told by `JobEnded`."""

    pilot: int
    key: PoolKey
    expires: float


@dataclass(frozen=True, slots=True)
class StopJob:
    """Stop this pilot's job; sent once, and `JobEnded` follows."""

    pilot: int


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """Tell the operator: a pilot failed, why, the how-manieth in a row it is, and when the next try may start."""

    pilot: int
    key: PoolKey
    reason: str
    failures: int
    retry_in_s: float


Action = StartJob | StopJob | ReportFailure


def step(state: State, event: Event) -> tuple[State, list[Action]]:
    """Take one event.

    Args:
        state: from `State(pools)` or the step before.
        event: what happened.

    Returns:
        The next state, and the actions in the order to carry them out.

    Raises:
        LookupError: the event is about a pilot or pool that is not there; nothing changes.
        ValueError: an adopted pilot has the number of one that is there; nothing changes.
    """
    actions: list[Action] = []
    match event:
        case Tick():
            pools = tuple(_tick(pool, state.limits, event, actions) for pool in state.pools)
        case Adopted():
            state = _adopted(state, event, actions)
            pools = state.pools
        case StopRequested():
            pools = tuple(_stop_all(pool, actions) for pool in state.pools)
            state = replace(state, stopping=True)
        case Requested():
            pool = state.pool(event.key)
            cold = not any(_counts(pilot, pool.spec, state.limits, event.now) for pilot in pool.pilots)
            pools = _put(state.pools, replace(pool, requested=pool.requested or cold))
        case JobSeen() | ClusterSeen():
            pools = state.pools
        case Announced():
            pool, pilot = _find(state, event.pilot)
            pools = _put(state.pools, _with(pool, _announced(pilot, event)))
        case StatusSeen():
            pool, pilot = _find(state, event.pilot)
            pools = _put(state.pools, _status(pool, pilot, state.limits, event))
        case JobEnded():
            pool, pilot = _find(state, event.pilot)
            pools = _put(state.pools, _ended(pool, pilot, state.limits, event, actions))
    return _fill(replace(state, pools=pools), event.now, actions), actions


def renewal_margin_s(spec: PoolSpec, limits: Limits) -> float:
    """How long before a lease's end its successor starts; a short lease spends at most half of itself on that."""
    return min(limits.renew_before_s, spec.walltime_s / 2)


def _leaving(pilot: Pilot, spec: PoolSpec, limits: Limits, now: float) -> bool:
    """Whether a pilot's lease is so short that its successor is due."""
    return now >= pilot.expires - renewal_margin_s(spec, limits)


def _relieved(pool: PoolState, pilot: Pilot, limits: Limits, now: float) -> bool:
    """Whether others take a leaving pilot's new requests."""
    if not _leaving(pilot, pool.spec, limits, now):
        return False
    ready = [other for other in pool.pilots if other.phase is Phase.READY and _counts(other, pool.spec, limits, now)]
    return len(ready) >= max(pool.spec.min_ready, 1)


def _counts(pilot: Pilot, spec: PoolSpec, limits: Limits, now: float) -> bool:
    """Whether a pilot is one of those that the pool wants; the others are on their way out."""
    alive = pilot.phase in {Phase.STARTING, Phase.READY} and not pilot.stopping
    return alive and not _leaving(pilot, spec, limits, now)


def _find(state: State, number: int) -> tuple[PoolState, Pilot]:
    for pool in state.pools:
        for pilot in pool.pilots:
            if pilot.number == number:
                return pool, pilot
    raise LookupError(f"no pilot {number}")


def _put(pools: tuple[PoolState, ...], changed: PoolState) -> tuple[PoolState, ...]:
    return tuple(changed if pool.spec.key == changed.spec.key else pool for pool in pools)


def _with(pool: PoolState, changed: Pilot) -> PoolState:
    pilots = tuple(changed if pilot.number == changed.number else pilot for pilot in pool.pilots)
    return replace(pool, pilots=pilots)


def _enter(pilot: Pilot, phase: Phase, now: float) -> Pilot:
    return pilot if pilot.phase is phase else replace(pilot, phase=phase, since=now)


def _adopted(state: State, event: Adopted, actions: list[Action]) -> State:
    known = [pilot.number for pool in state.pools for pilot in pool.pilots]
    numbers = known + [adoptee.pilot for adoptee in event.pilots]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"pilot numbers {numbers} are not all different")
    pools = state.pools
    for adoptee in event.pilots:
        pool = replace(state, pools=pools).pool(adoptee.key)
        phase = adoptee.phase if adoptee.phase in {Phase.READY, Phase.DRAINING} else Phase.STARTING
        seen = event.now if adoptee.announced else None
        pilot = Pilot(adoptee.pilot, phase, event.now, adoptee.expires, seen, adoptee.announced)
        staying = sum(not other.stopping for other in pool.pilots)
        pool = replace(pool, pilots=(*pool.pilots, pilot))
        if not adoptee.wanted or staying >= pool.spec.max_workers + pool.spec.renewal_surge:
            pool = _stop(pool, pilot, actions)
        pools = _put(pools, pool)
    return replace(state, pools=pools, next_number=max([state.next_number - 1, *numbers]) + 1)


def _announced(pilot: Pilot, event: Announced) -> Pilot:
    if not event.restarted:
        return replace(pilot, announced=True)
    pilot = replace(pilot, announced=True, seen=None, running=0, note="")
    return pilot if pilot.stopping else replace(pilot, phase=Phase.STARTING, since=event.now)


def _status(pool: PoolState, pilot: Pilot, limits: Limits, event: StatusSeen) -> PoolState:
    seen = replace(pilot, seen=event.now, running=event.running, note=event.note)
    if pilot.stopping:
        return _with(pool, seen)
    if event.draining or event.now >= pilot.expires:
        return _with(pool, _enter(seen, Phase.DRAINING, event.now))
    if not event.engine_ready:
        return _with(pool, _enter(seen, Phase.STARTING, event.now))
    if _relieved(pool, pilot, limits, event.now):
        return _with(pool, _enter(seen, Phase.DRAINING, event.now))
    if pilot.phase is not Phase.READY:
        pool = replace(pool, failures=0, retry_at=0.0, reason="", requested=False)
    return _with(pool, _enter(seen, Phase.READY, event.now))


def _tick(pool: PoolState, limits: Limits, event: Tick, actions: list[Action]) -> PoolState:
    for pilot in pool.pilots:
        if pilot.stopping:
            continue
        heard = pilot if event.listening else _excused(pilot, event.now)
        pool = _judge(_with(pool, heard), heard, limits, event.now, actions)
    return pool


def _excused(pilot: Pilot, now: float) -> Pilot:
    seen = None if pilot.seen is None else now
    return replace(pilot, seen=seen, since=now if pilot.phase is Phase.LOST else pilot.since)


def _judge(pool: PoolState, pilot: Pilot, limits: Limits, now: float, actions: list[Action]) -> PoolState:
    """Hold one pilot against the clocks."""
    in_phase_s = now - pilot.since
    if now >= pilot.expires + limits.expiry_grace_s:
        return _stop(pool, pilot, actions)
    if pilot.phase is Phase.LOST:
        if in_phase_s < limits.remove_after_s:
            return pool
        reason = reasons.lost(limits.lost_after_s + in_phase_s)
        return _failed(_stop(pool, pilot, actions), pilot, limits, now, reason, actions)
    if pilot.seen is not None and now - pilot.seen >= limits.lost_after_s:
        return _with(pool, _enter(pilot, Phase.LOST, now))
    if pilot.phase is Phase.STARTING and in_phase_s >= pool.spec.start_limit_s:
        reason = reasons.never_ready(pool.spec.start_limit_s, announced=pilot.announced, note=pilot.note)
        return _failed(_stop(pool, pilot, actions), pilot, limits, now, reason, actions)
    relieved = pilot.phase is Phase.READY and _relieved(pool, pilot, limits, now)
    if relieved or now >= pilot.expires:
        return _with(pool, _enter(pilot, Phase.DRAINING, now))
    return pool


def _stop(pool: PoolState, pilot: Pilot, actions: list[Action]) -> PoolState:
    actions.append(StopJob(pilot.number))
    return _with(pool, replace(pilot, stopping=True))


def _stop_all(pool: PoolState, actions: list[Action]) -> PoolState:
    for pilot in pool.pilots:
        if not pilot.stopping:
            pool = _stop(pool, pilot, actions)
    return pool


def _ended(pool: PoolState, pilot: Pilot, limits: Limits, event: JobEnded, actions: list[Action]) -> PoolState:
    left_s = pilot.expires - event.now
    pool = replace(pool, pilots=tuple(other for other in pool.pilots if other.number != pilot.number))
    if pilot.stopping or left_s <= renewal_margin_s(pool.spec, limits):
        return pool
    reason = reasons.ended(event.exit_code, event.tail, left_s=left_s, started=event.started)
    return _failed(pool, pilot, limits, event.now, reason, actions)


def _failed(pool: PoolState, pilot: Pilot, limits: Limits, now: float, reason: str, actions: list[Action]) -> PoolState:
    """Count a failure; those of one burst, before the next try was due, count as one."""
    failures = pool.failures + 1 if now >= pool.retry_at else max(pool.failures, 1)
    delay_s = min(limits.backoff_last_s, limits.backoff_first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    retry_at = max(pool.retry_at, now + delay_s)
    actions.append(ReportFailure(pilot.number, pool.spec.key, reason, failures, retry_at - now))
    return replace(pool, failures=failures, retry_at=retry_at, reason=reason, requested=False)


def _fill(state: State, now: float, actions: list[Action]) -> State:
    """Start what is missing."""
    if state.stopping:
        return state
    for pool in state.pools:
        spec = pool.spec
        counting = sum(_counts(pilot, spec, state.limits, now) for pilot in pool.pilots)
        missing = max(spec.min_ready, int(pool.requested)) - counting
        leaving = sum(_leaving(pilot, spec, state.limits, now) for pilot in pool.pilots)
        missing = min(missing, spec.max_workers + min(spec.renewal_surge, leaving) - len(pool.pilots))
        if pool.failures:
            trying = any(pilot.phase is Phase.STARTING and not pilot.stopping for pilot in pool.pilots)
            missing = 0 if trying or now < pool.retry_at else min(missing, 1)
        for _ in range(missing):
            pilot = Pilot(state.next_number, Phase.STARTING, now, now + spec.walltime_s)
            actions.append(StartJob(pilot.number, spec.key, pilot.expires))
            pool = replace(pool, pilots=(*pool.pilots, pilot))  # noqa: PLW2901  (each pilot adds to the pool)
            state = replace(state, pools=_put(state.pools, pool), next_number=pilot.number + 1)
    return state
