"""Leases are renewed as early as that cluster's measured waits ask for, and queues have their own clocks."""

import pytest
from hpc_dispatch.plans import SPEC, T0, fresh, pilot, ready, run, started

from stream_hpc_dispatch import clocks
from stream_hpc_dispatch.plan import (
    JobEnded,
    JobSeen,
    Limits,
    Phase,
    PoolState,
    ReportFailure,
    StartJob,
    StatusSeen,
    StopJob,
    Tick,
)

QUEUED = [JobSeen(T0 + second, 1, queued=True, position=7, words="Resources") for second in (5, 300, 600)]


@pytest.mark.parametrize(
    ("waits", "startups", "margin_s"),
    [
        ((), (), 120),
        ((10.0,), (20.0,), 120),
        ((300.0,), (100.0,), 460),
        (tuple(float(wait) for wait in range(10, 110, 10)), (100.0,), 250),
        ((5000.0,), (10.0,), 1800),
    ],
)
def test_renewal_margin(waits, startups, margin_s):
    """The setting, or the 90th percentile of wait and start-up and the pool's margin; at most half of the lease."""
    pool = PoolState(SPEC, waits=waits, startups=startups)
    assert clocks.renewal_margin_s(pool, Limits(), 3600) == margin_s


def test_successor_is_submitted_for_the_measured_wait():
    """After a start that queued 600 s and took 50 s the successor comes 710 s before the lease's end."""
    state, _ = run(fresh()[0], *QUEUED, *ready(T0 + 650, 1))
    assert (state.pools[0].waits, state.pools[0].startups) == ((600.0,), (50.0,))
    state, _ = run(state, StatusSeen(T0 + 3600 - 711, 1), Tick(T0 + 3600 - 711))
    assert len(state.pools[0].pilots) == 1
    state, actions = run(state, Tick(T0 + 3600 - 710))
    assert started(actions) == [2]
    state, _ = run(state, StatusSeen(T0 + 3600 - 100, 1), *ready(T0 + 3600 - 100, 2))
    state, _ = run(state, StatusSeen(T0 + 3600 - 99, 1))
    assert (pilot(state).phase, pilot(state, 2).phase) == (Phase.DRAINING, Phase.READY)


def test_only_first_starts_are_measured():
    """A restarted engine, and a start beyond its limit, tell nothing about the queue; sixteen are remembered."""
    state, _ = run(fresh()[0], *ready(T0 + 10, 1), StatusSeen(T0 + 20, 1, engine_ready=False), *ready(T0 + 50, 1))
    assert state.pools[0].startups == (10,)
    for number in range(2, 30):
        state, actions = run(state, JobEnded(T0 + 100 * number, number - 1, 1), Tick(T0 + 100 * number + 1))
        assert started(actions) == [number]
        state, _ = run(state, *ready(T0 + 100 * number + 1 + number, number))
    assert state.pools[0].startups == tuple(float(number) for number in range(14, 30))


def test_start_limit_runs_from_when_the_job_runs():
    """In the queue no start is given up; once it runs it has its 60 s."""
    state, actions = run(fresh()[0], *QUEUED, Tick(T0 + 601))
    assert (actions, pilot(state).queued) == ([], True)
    state, actions = run(state, JobSeen(T0 + 605, 1, queued=False), Tick(T0 + 659))
    assert (actions, pilot(state).queued, pilot(state).position) == ([], False, None)
    state, actions = run(state, JobSeen(T0 + 659, 1, queued=True), Tick(T0 + 660))
    assert [type(action) for action in actions] == [StopJob, ReportFailure]
    assert "did not announce itself within 60 s" in state.pools[0].reason


@pytest.mark.parametrize(("changes", "at"), [({"pending_limit_s": 900}, 900), ({}, 3551)])
def test_pending_beyond_its_limit(changes, at):
    """A job that waits too long, or until its lease is too short to start in, is taken back with a reason."""
    state, _ = fresh(**changes)
    state, _ = run(state, *QUEUED)
    if not changes:
        state = state.with_pool(PoolState(SPEC, state.pools[0].pilots, startups=(50.0,)))
    state, actions = run(state, JobSeen(T0 + at - 2, 1, queued=True, words="Resources"), Tick(T0 + at - 1))
    assert StopJob(1) not in actions
    state, actions = run(state, Tick(T0 + at))
    assert actions[0] == StopJob(1)
    words = f"still waiting in the cluster's queue after {at:,} s, which says: Resources"
    assert words in state.pools[0].reason
    assert run(state, Tick(T0 + at + 0.1))[1] == []


def test_never_a_gap_over_many_leases():
    """Twenty renewals in a queue of ten minutes: at every second from the first start some worker is READY."""
    state, actions = fresh(min_ready=1, max_workers=1, renewal_surge=1, walltime_s=3600)
    alive = {}
    seen_ready, gaps = False, 0
    for tick in range(20 * 360):
        now = T0 + 10 * tick
        for action in actions:
            match action:
                case StartJob(number, _, expires):
                    alive[number] = (now, expires)
                case StopJob(number):
                    alive[number] = (alive[number][0], now)
        actions = []
        for number, (submitted, expires) in list(alive.items()):
            if now >= expires:
                del alive[number]
                event = JobEnded(now, number, 0)
            elif now < submitted + 600:
                event = JobSeen(now, number, queued=True)
            else:
                event = StatusSeen(now, number, engine_ready=now >= submitted + 640)
            state, more = run(state, event)
            actions += more
        state, more = run(state, Tick(now))
        actions += more
        answering = any(one.phase is Phase.READY for one in state.pools[0].pilots)
        gaps += seen_ready and not answering
        seen_ready |= answering
        assert len(state.pools[0].pilots) <= 2
    assert (seen_ready, gaps) == (True, 0)


def test_idle_or_not_min_ready_stays_until_it_is_relieved():
    """Of two idle workers the one that leaves takes requests until its successor is ready, too."""
    state, _ = run(fresh(min_ready=2, max_workers=3)[0], *ready(T0 + 1, 1))
    late = T0 + 2000
    state, _ = run(state, StatusSeen(late, 1), JobEnded(late, 2, 1), Tick(late + 1), *ready(late + 2, 3))
    near = T0 + 3600 - 60
    state, actions = run(state, StatusSeen(near, 3), StatusSeen(near, 1), Tick(near + 1))
    assert (started(actions), pilot(state).phase) == ([4], Phase.READY)
    state, _ = run(state, *ready(near + 2, 4), StatusSeen(near + 3, 1))
    assert pilot(state).phase is Phase.DRAINING
