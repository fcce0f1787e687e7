"""What to do about the pilots of every pool. Pure: `step(state, event)` gives the next state and the actions.

A pool is one model on one cluster; a pilot is one job of it, from the moment it is to be started until its job ended.

    phase    | meaning                            | leaves it by
    ---------+------------------------------------+------------------------------------------------------------------
    STARTING | no engine that answers yet         | StatusSeen ready -> READY, draining -> DRAINING
             |                                    | `start_limit_s` over, from when its job runs: StopJob, failure
             |                                    | `pending_limit_s` over in the queue, or so much of the lease that
             |                                    | the rest is too short to start in: StopJob, failure
    READY    | takes requests                     | StatusSeen not ready -> STARTING, draining -> DRAINING
             |                                    | Announced with a new key (restarted) -> STARTING
             |                                    | renewal margin reached and relieved -> DRAINING
             |                                    | surplus (`scaling`) -> DRAINING, retiring
    DRAINING | finishes what it has               | JobEnded; one that was relieved: its relief gone -> READY
             |                                    | retiring: nothing left: StopJob; needed again -> READY
    LOST     | no STATUS for `lost_after_s`       | StatusSeen -> what the status says
             |                                    | `remove_after_s` more: StopJob, failure

    Any phase that has sent a STATUS becomes LOST by silence; STARTING and READY become DRAINING when the lease ends.
    A pilot whose lease ended `expiry_grace_s` ago gets StopJob; one whose worker says that it gives up gets StopJob,
    and that is a failure. A queued job that is surplus gets StopJob. After StopJob a pilot is `stopping`: its phase
    only goes on to be shown, and JobEnded removes it. JobEnded of a pilot that was not stopping and not about to be
    renewed is a failure, but for: exit 0 after READY where `max_requests` is 1, which is one request served; and a
    job that its cluster did not take while it was offline. While the broker is away silence proves nothing: then the
    clocks of silence stand still.

    A pilot comes in by StartJob, as STARTING, or by Adopted, as an earlier run of this program left it:

      left as  | becomes                                          | unless it is not wanted any more, or one too many
      ---------+--------------------------------------------------+----------------------------------------------------
      READY    | READY, and has `lost_after_s` to speak           | the same phase, and StopJob
      DRAINING | DRAINING, likewise                               |
      others   | STARTING, from now; likewise if it had announced |

    After every event the pools that it may concern are filled (a Tick concerns all):
      wanted   = `scaling`: min_ready, what load and those who wait need, or 1 when a request asked for a cold model
      counting = STARTING or READY, not stopping, lease longer than the renewal margin (`clocks`)
      relieved = as many READY pilots count as are needed: then those in their renewal margin get no new requests
      leaving  = lease not longer than the renewal margin
      room     = `max_workers` jobs, and up to `renewal_surge` more, one for each that is leaving
      start      wanted - counting pilots, as far as there is room; none before `retry_at` (`failures`), after a
                 failure one at a time; none on a cluster that is offline, or whose `budget` leaves no useful lease

    Without room for a renewal the successor starts when the old one has ended.

`now` is in unix seconds, everywhere.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from stream_hpc_dispatch import budget, clocks, failures, reasons, scaling
from stream_hpc_dispatch.events import (
    Action,
    Adopted,
    Adoptee,
    Announced,
    ClusterSeen,
    Event,
    JobEnded,
    JobSeen,
    ReportFailure,
    Requested,
    StartJob,
    StatusSeen,
    StopJob,
    StopRequested,
    Tick,
)
from stream_hpc_dispatch.states import (
    ClusterSpec,
    ClusterState,
    Limits,
    Phase,
    Pilot,
    PoolKey,
    PoolSpec,
    PoolState,
    State,
)

__all__ = [
    "Action",
    "Adopted",
    "Adoptee",
    "Announced",
    "ClusterSeen",
    "ClusterSpec",
    "ClusterState",
    "Event",
    "JobEnded",
    "JobSeen",
    "Limits",
    "Phase",
    "Pilot",
    "PoolKey",
    "PoolSpec",
    "PoolState",
    "ReportFailure",
    "Requested",
    "StartJob",
    "State",
    "StatusSeen",
    "StopJob",
    "StopRequested",
    "Tick",
    "step",
]


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
    before, actions = state, list[Action]()
    match event:
        case Tick():
            state = _tick(state, event, actions)
        case Adopted():
            state = _adopted(state, event, actions)
        case StopRequested():
            pools = tuple(_stop_all(pool, actions) for pool in state.pools)
            state = replace(state, stopping=True, pools=pools)
        case Requested():
            state = _requested(state, event)
        case ClusterSeen():
            state = _cluster_seen(state, event)
        case JobSeen() | Announced() | StatusSeen():
            pool, pilot = state.pilot(event.pilot)
            state = state.with_pool(_heard(pool, pilot, state.limits, event, actions))
        case JobEnded():
            state = _ended(state, event, actions)
    if not state.stopping:
        for index in _touched(before, state, event):
            state = _fill(_shrink(state, index, event.now, actions), index, event.now, actions)
    return state, actions


def _touched(before: State, after: State, event: Event) -> Iterable[int]:
    """Choose the pools to fill: what workers and gateways say concerns their own, all else may concern every one."""
    match event:
        case JobSeen() | Announced() | StatusSeen() | Requested():
            pools = zip(before.pools, after.pools, strict=True)
            return [index for index, (old, new) in enumerate(pools) if new is not old]
    return range(len(after.pools))


def _heard(
    pool: PoolState, pilot: Pilot, limits: Limits, event: JobSeen | Announced | StatusSeen, actions: list[Action]
) -> PoolState:
    match event:
        case JobSeen():
            return _job_seen(pool, pilot, event)
        case Announced():
            return _announced(pool, pilot, event)
        case StatusSeen():
            return _status(pool, pilot, limits, event, actions)


def _enter(pilot: Pilot, phase: Phase, now: float) -> Pilot:
    return pilot if pilot.phase is phase else replace(pilot, phase=phase, since=now)


def _adopted(state: State, event: Adopted, actions: list[Action]) -> State:
    known = [pilot.number for pool in state.pools for pilot in pool.pilots]
    numbers = known + [adoptee.pilot for adoptee in event.pilots]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"pilot numbers {numbers} are not all different")
    for adoptee in event.pilots:
        pool = state.pool(adoptee.key)
        phase = adoptee.phase if adoptee.phase in {Phase.READY, Phase.DRAINING} else Phase.STARTING
        pilot = Pilot(
            adoptee.pilot,
            phase,
            event.now,
            adoptee.expires,
            seen=event.now if adoptee.announced else None,
            announced=adoptee.announced,
            submitted=adoptee.expires - pool.spec.walltime_s,
            ran_from=event.now if adoptee.ran_from is None else adoptee.ran_from,
            queued=False if adoptee.announced else None,
            ready_at=event.now if phase is Phase.READY else None,
            adopted=True,
        )
        staying = sum(not other.stopping for other in pool.pilots)
        pool = replace(pool, pilots=(*pool.pilots, pilot))
        if not adoptee.wanted or staying >= pool.spec.max_workers + pool.spec.renewal_surge:
            pool = _stop(pool, pilot, actions)
        state = state.with_pool(pool)
    return replace(state, next_number=max([state.next_number - 1, *numbers]) + 1)


def _requested(state: State, event: Requested) -> State:
    pool = state.pool(event.key)
    if event.anywhere:
        # What waits for any cluster waits for the one that was chosen last, and no longer for those before.
        for other in state.pools:
            if other.spec.key.model == event.key.model and other.spec.key != event.key:
                moved = scaling.ask(other, event.gateway, anywhere=True, waiting=0, now=event.now)
                state = state.with_pool(moved)
    cold = not any(clocks.counts(pilot, pool, state.limits, event.now) for pilot in pool.pilots)
    pool = scaling.ask(pool, event.gateway, anywhere=event.anywhere, waiting=event.waiting, now=event.now)
    return state.with_pool(replace(pool, requested=pool.requested or cold))


def _cluster_seen(state: State, event: ClusterSeen) -> State:
    cluster = state.cluster(event.cluster)
    if all(pool.spec.key.cluster != event.cluster for pool in state.pools):
        return state  # one that only has workers of an earlier run
    if event.online and not cluster.online:
        # What failed during the outage says nothing about the pools.
        for pool in state.pools:
            if pool.spec.key.cluster == event.cluster:
                state = state.with_pool(failures.forgive(pool))
    return state.with_cluster(
        replace(
            cluster, online=event.online, reason="" if event.online else reasons.offline(event.cluster, event.reason)
        )
    )


def _job_seen(pool: PoolState, pilot: Pilot, event: JobSeen) -> PoolState:
    if pilot.announced:
        return pool
    if not event.queued:
        return clocks.has_run(pool, pilot)
    if pilot.queued is False:
        return pool  # a job that ran and was put back by its batch system: its clocks go on
    waits = replace(
        pilot, queued=True, ran_from=event.now, position=event.position, starts=event.starts, words=event.words
    )
    return pool.with_pilot(waits)


def _announced(pool: PoolState, pilot: Pilot, event: Announced) -> PoolState:
    if event.restarted:
        pilot = replace(pilot, seen=None, running=0, waiting=0, note="", retiring=False)
        pilot = pilot if pilot.stopping else replace(pilot, phase=Phase.STARTING, since=event.now)
    return clocks.has_run(pool, replace(pilot, announced=True))


def _status(pool: PoolState, pilot: Pilot, limits: Limits, event: StatusSeen, actions: list[Action]) -> PoolState:
    now = event.now
    begun = max(0, event.served - pilot.served, event.running - pilot.running)
    seen = replace(
        pilot,
        seen=now,
        running=event.running,
        note=event.note,
        waiting=event.waiting,
        cache_use=event.cache_use,
        first_token_ms=event.first_token_ms,
        served=event.served,
    )
    pool = scaling.begin(clocks.has_run(pool, seen), begun, now)
    seen = next(one for one in pool.pilots if one.number == pilot.number)
    if pilot.stopping:
        return pool
    if event.failed:
        return _failed(_stop(pool, seen, actions), seen, limits, now, reasons.gave_up(event.failed), actions)
    if event.draining or now >= pilot.expires:
        return pool.with_pilot(_enter(replace(seen, retiring=False), Phase.DRAINING, now))
    if pilot.retiring and pilot.phase is not Phase.LOST:
        idle = event.engine_ready and not seen.load and now - pilot.since >= limits.settle_s
        return _stop(pool, seen, actions) if idle else pool
    seen = replace(seen, retiring=False)
    if not event.engine_ready:
        return pool.with_pilot(_enter(seen, Phase.STARTING, now))
    if pilot.phase is not Phase.STARTING and scaling.relieved(pool, pilot, limits, now):
        return pool.with_pilot(_enter(seen, Phase.DRAINING, now))
    if pilot.phase is not Phase.READY:
        pool = replace(failures.forgive(pool), requested=False)
    return clocks.is_ready(pool, _enter(seen, Phase.READY, now), now)


def _tick(state: State, event: Tick, actions: list[Action]) -> State:
    clusters = tuple(failures.forget_old(cluster, event.now) for cluster in state.clusters)
    pools: list[PoolState] = []
    for before in state.pools:
        pool = scaling.forget_old_asks(before, state.limits, event.now)
        for pilot in pool.pilots:
            if pilot.stopping:
                continue
            heard = pilot if event.listening else _excused(pilot, event.now)
            pool = _judge(pool.with_pilot(heard), heard, state.limits, event.now, actions)
        pools.append(pool)
    return replace(state, pools=tuple(pools), clusters=clusters)


def _excused(pilot: Pilot, now: float) -> Pilot:
    seen = None if pilot.seen is None else now
    return replace(pilot, seen=seen, since=now if pilot.phase is Phase.LOST else pilot.since)


def _judge(pool: PoolState, pilot: Pilot, limits: Limits, now: float, actions: list[Action]) -> PoolState:
    """Hold one pilot against the clocks."""
    in_phase_s = now - pilot.since
    reason = ""
    if now >= pilot.expires + limits.expiry_grace_s:
        return _stop(pool, pilot, actions)
    if pilot.phase is Phase.LOST:
        if in_phase_s < limits.remove_after_s:
            return pool
        reason = reasons.lost(limits.lost_after_s + in_phase_s)
    elif pilot.seen is not None and now - pilot.seen >= limits.lost_after_s:
        return pool.with_pilot(_enter(pilot, Phase.LOST, now))
    elif pilot.phase is Phase.STARTING and pilot.queued:
        waited_s = now - pilot.submitted
        if waited_s >= pool.spec.pending_limit_s or pilot.expires - now < clocks.usual_startup_s(pool):
            reason = reasons.queued_too_long(waited_s, pilot.words)
    elif pilot.phase is Phase.STARTING and now - max(pilot.since, pilot.ran_from) >= pool.spec.start_limit_s:
        reason = reasons.never_ready(pool.spec.start_limit_s, announced=pilot.announced, note=pilot.note)
    if reason:
        return _failed(_stop(pool, pilot, actions), pilot, limits, now, reason, actions)
    relieved = pilot.phase is Phase.READY and scaling.relieved(pool, pilot, limits, now)
    if relieved or now >= pilot.expires:
        return pool.with_pilot(_enter(pilot, Phase.DRAINING, now))
    return pool


def _stop(pool: PoolState, pilot: Pilot, actions: list[Action]) -> PoolState:
    actions.append(StopJob(pilot.number))
    return pool.with_pilot(replace(pilot, stopping=True))


def _stop_all(pool: PoolState, actions: list[Action]) -> PoolState:
    for pilot in pool.pilots:
        if not pilot.stopping:
            pool = _stop(pool, pilot, actions)
    return pool


def _failed(pool: PoolState, pilot: Pilot, limits: Limits, now: float, reason: str, actions: list[Action]) -> PoolState:
    pilots = tuple(replace(one, failed=True) if one.number == pilot.number else one for one in pool.pilots)
    return failures.fail(replace(pool, pilots=pilots), pilot, limits, now, reason, actions)


def _ended(state: State, event: JobEnded, actions: list[Action]) -> State:
    pool, pilot = state.pilot(event.pilot)
    now, left_s = event.now, pilot.expires - event.now
    cluster = state.cluster(pool.spec.key.cluster)
    pool = replace(pool, pilots=tuple(other for other in pool.pilots if other.number != pilot.number))
    margin_s = clocks.renewal_margin_s(pool, state.limits, pilot.expires - pilot.submitted)
    served = pool.spec.max_requests == 1 and pilot.ready_at is not None and event.exit_code in {0, None}
    if served and not pilot.served:
        pool = scaling.begin(pool, 1, now)  # it ended before it could tell
    excused = pilot.stopping or left_s <= margin_s or served or not (event.started or cluster.online)
    if not excused:
        reason = reasons.ended(event.exit_code, event.tail, left_s=left_s, started=event.started, told=event.reason)
        pool = failures.fail(pool, pilot, state.limits, now, reason, actions)
    if event.started:
        cluster = budget.spend(cluster, pilot, pool.spec.nodes, now)
    if event.started or not excused:
        cluster = failures.note_end(cluster, now, failed=pilot.failed or not excused)
    return state.with_pool(pool).with_cluster(cluster)


def _shrink(state: State, index: int, now: float, actions: list[Action]) -> State:
    """Let go of what a pool does not need any more."""
    pool = scaling.remember(state.pools[index], state.limits, now)
    pool = scaling.recall(pool, state.limits, now)
    back, retiring = scaling.surplus(pool, state.limits, now)
    for pilot in back:
        pool = _stop(pool, pilot, actions)
    for pilot in retiring:
        pool = pool.with_pilot(replace(_enter(pilot, Phase.DRAINING, now), retiring=True))
    return state if pool is state.pools[index] else state.with_pool(pool)


def _fill(state: State, index: int, now: float, actions: list[Action]) -> State:
    """Start what a pool lacks."""
    pool = state.pools[index]
    key = pool.spec.key
    missing = scaling.missing(pool, state.limits, now)
    if pool.failures and missing > 0:
        trying = any(pilot.phase is Phase.STARTING and not pilot.stopping for pilot in pool.pilots)
        missing = 0 if trying or now < pool.retry_at else min(missing, 1)
    blocked = ""
    while missing > 0:
        expires, blocked = _lease(state, pool, now)
        if blocked:
            break
        pilot = Pilot(state.next_number, Phase.STARTING, now, expires, submitted=now, ran_from=now)
        actions.append(StartJob(pilot.number, key, expires))
        pool = replace(pool, pilots=(*pool.pilots, pilot))
        state = replace(state.with_pool(pool), next_number=pilot.number + 1)
        missing -= 1
    return state if blocked == pool.blocked else state.with_pool(replace(pool, blocked=blocked))


def _lease(state: State, pool: PoolState, now: float) -> tuple[float, str]:
    """Give the end of a lease that starts now; or say why there can be none."""
    name = pool.spec.key.cluster
    cluster = state.cluster(name)
    if not cluster.online:
        return now, cluster.reason
    limit_s = cluster.spec.node_s_per_day
    expires = budget.lease_end(state, pool, now)
    least_s = min(clocks.least_lease_s(pool), pool.spec.walltime_s)
    if limit_s is None or expires - now >= least_s:
        return expires, ""
    overhang_s = state.limits.expiry_grace_s + state.limits.ending_s
    left_s = budget.left_s(state, name, budget.day_of(now), now)
    return now, reasons.budget_spent(
        name, limit_s=limit_s, left_s=left_s or 0.0, least_s=pool.spec.nodes * (least_s + overhang_s)
    )
