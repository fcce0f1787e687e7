"""The plan: its table row by row."""

import pytest
from hpc_dispatch.plans import KEY, SPEC, T0, pilot, run
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stream_hpc_dispatch.plan import (
    Adopted,
    Adoptee,
    Announced,
    JobEnded,
    Limits,
    Phase,
    Pilot,
    PoolKey,
    PoolState,
    ReportFailure,
    Requested,
    StartJob,
    State,
    StatusSeen,
    StopJob,
    StopRequested,
    Tick,
    step,
)

LIMITS = Limits()


def fresh(**changes):
    """A plan that has just seen its first tick."""
    return step(State((PoolState(replace(SPEC, **changes)),)), Tick(T0))


READY = (Announced(T0 + 1, 1), StatusSeen(T0 + 1, 1))


@pytest.mark.parametrize(
    ("events", "phase", "actions"),
    [
        ([Announced(T0 + 1, 1)], Phase.STARTING, []),
        ([StatusSeen(T0 + 1, 1, engine_ready=False, note="loading")], Phase.STARTING, []),
        ([*READY], Phase.READY, []),
        ([*READY, StatusSeen(T0 + 2, 1, engine_ready=False)], Phase.STARTING, []),
        ([*READY, StatusSeen(T0 + 2, 1, draining=True)], Phase.DRAINING, [StartJob(2, KEY, T0 + 2 + 3600)]),
        ([*READY, Announced(T0 + 2, 1)], Phase.READY, []),
        ([*READY, Announced(T0 + 2, 1, restarted=True)], Phase.STARTING, []),
        ([*READY, Tick(T0 + 10.9)], Phase.READY, []),
        ([*READY, Tick(T0 + 11)], Phase.LOST, [StartJob(2, KEY, T0 + 11 + 3600)]),
        ([*READY, Tick(T0 + 500, listening=False), Tick(T0 + 509)], Phase.READY, []),
        ([*READY, Tick(T0 + 11), StatusSeen(T0 + 12, 1)], Phase.READY, [StartJob(2, KEY, T0 + 11 + 3600)]),
        ([*READY, Tick(T0 + 11), Tick(T0 + 40.9)], Phase.LOST, [StartJob(2, KEY, T0 + 11 + 3600)]),
        ([StatusSeen(T0 + 1, 1, engine_ready=False), Tick(T0 + 11)], Phase.LOST, [StartJob(2, KEY, T0 + 11 + 3600)]),
        ([Tick(T0 + 59)], Phase.STARTING, []),
        ([StatusSeen(T0 + 3590, 1), Tick(T0 + 3595)], Phase.READY, [StartJob(2, KEY, T0 + 3590 + 3600)]),
        ([StatusSeen(T0 + 3595, 1), Tick(T0 + 3600)], Phase.DRAINING, [StartJob(2, KEY, T0 + 3595 + 3600)]),
        ([StatusSeen(T0 + 3600, 1)], Phase.DRAINING, [StartJob(2, KEY, T0 + 3600 + 3600)]),
    ],
)
def test_phases(events, phase, actions):
    """Each row of the table: events, the first pilot's phase after them, and the actions on the way."""
    state, started = fresh()
    assert started == [StartJob(1, KEY, T0 + 3600)]
    state, seen = run(state, *events)
    assert pilot(state).phase is phase
    assert seen == actions


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([Tick(T0 + 60)], "did not announce itself within 60 s"),
        ([Announced(T0 + 1, 1), Tick(T0 + 60)], "the engine was not ready within 60 s"),
        ([*READY, Tick(T0 + 11), Tick(T0 + 41)], "no sign of life for 40 s"),
    ],
)
def test_given_up(events, words):
    """A start that takes too long and a worker that stays silent are stopped and counted as a failure."""
    state, actions = run(fresh()[0], *events)
    failure = next(action for action in actions if isinstance(action, ReportFailure))
    assert StopJob(1) in actions
    assert words in failure.reason
    assert (failure.failures, failure.retry_in_s, state.pools[0].reason) == (1, 0.5, failure.reason)
    assert pilot(state).stopping


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (JobEnded(T0 + 2, 1, None, "no such program", started=False), "could not be started: no such program"),
        (JobEnded(T0 + 2, 1, None), "the worker ended, 3,598 s before its lease; its log is empty"),
        (JobEnded(T0 + 2, 1, 0), "ended by itself, 3,598 s before its lease; its log is empty"),
        (JobEnded(T0 + 2, 1, 7, "a\nno GPU\n \n"), "ended with exit code 7; its log ends: no GPU"),
        (JobEnded(T0 + 2, 1, 1, '{"msg": "failed", "exception": "Traceback\\nOSError: full"}'), "ends: OSError: full"),
        (JobEnded(T0 + 2, 1, 1, '{"msg": "failed"}'), "ends: failed"),
        (JobEnded(T0 + 2, 1, 1, "{not json"), "ends: {not json"),
        (JobEnded(T0 + 2, 1, 1, "\x1b[31m" + "x" * 400), "ends: ?[31m" + "x" * 295 + "..."),
        (JobEnded(T0 + 2, 1, -9), "killed by SIGKILL (often: out of memory)"),
        (JobEnded(T0 + 2, 1, -15), "killed by SIGTERM;"),
        (JobEnded(T0 + 2, 1, -99), "killed by signal 99;"),
    ],
)
def test_job_that_ends_early_is_a_failure_in_words(end, words):
    """Every way a job can end too early becomes a reason, and the next try waits."""
    state, actions = run(fresh()[0], end)
    assert words in state.pools[0].reason
    assert [type(action) for action in actions] == [ReportFailure]
    assert step(state, Tick(T0 + 2.4))[1] == []
    assert step(state, Tick(T0 + 2.5))[1] == [StartJob(2, KEY, T0 + 2.5 + 3600)]


def test_backoff_grows_to_its_limit_and_ready_resets_it():
    """0.5 s, 1 s, 2 s .. 60 s between failed starts; after a READY it is 0.5 s again."""
    state, _ = fresh(max_failures=99)
    now, waits = T0, []
    for number in range(1, 12):
        state, (failure,) = step(state, JobEnded(now, number, 1))
        waits.append(failure.retry_in_s)
        now += failure.retry_in_s
        state, started = step(state, Tick(now))
        assert started == [StartJob(number + 1, KEY, now + 3600)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    state, _ = run(state, StatusSeen(now, 12))
    assert (state.pools[0].failures, state.pools[0].reason) == (0, "")
    _, (failure,) = step(state, JobEnded(now + 5, 12, 1))
    assert failure.retry_in_s == 0.5


def test_failures_of_one_burst_count_once():
    """Four workers started together that fail together are one failure; then one try at a time."""
    state, actions = fresh(min_ready=4, max_workers=4)
    assert len(actions) == 4
    state, actions = run(state, *(JobEnded(T0 + 0.1, number, 1) for number in (1, 2, 3, 4)))
    assert {action.failures for action in actions} == {1}
    state, actions = run(state, Tick(T0 + 1), Tick(T0 + 2))
    assert [action.pilot for action in actions] == [5]
    _, actions = run(state, StatusSeen(T0 + 3, 5))
    assert [action.pilot for action in actions] == [6, 7, 8]


def test_renewal_needs_room():
    """With room the successor starts before the lease ends; without it, when the old worker has ended."""
    state, actions = run(fresh()[0], StatusSeen(T0 + 3479, 1), StatusSeen(T0 + 3480, 1))
    assert actions == [StartJob(2, KEY, T0 + 3480 + 3600)]
    state, actions = run(state, JobEnded(T0 + 3601, 1, 0))
    assert actions == []
    tight, actions = run(fresh(max_workers=1)[0], StatusSeen(T0 + 3480, 1))
    assert actions == []
    _, actions = run(tight, JobEnded(T0 + 3601, 1, 0))
    assert actions == [StartJob(2, KEY, T0 + 3601 + 3600)]


def test_short_lease_is_not_renewed_at_once():
    """The renewal margin is at most half of the lease."""
    state, _ = fresh(walltime_s=100)
    state, actions = run(state, StatusSeen(T0 + 49, 1))
    assert actions == []
    assert run(state, StatusSeen(T0 + 50, 1))[1] == [StartJob(2, KEY, T0 + 150)]


def test_overdue_lease_is_stopped():
    """A worker still there 30 s after its lease's end is stopped, and that is no failure."""
    state, _ = run(fresh(max_workers=1)[0], StatusSeen(T0 + 3600, 1, draining=True), StatusSeen(T0 + 3629, 1))
    state, actions = step(state, Tick(T0 + 3630))
    assert actions == [StopJob(1)]
    assert step(state, Tick(T0 + 3700))[1] == []
    assert step(state, JobEnded(T0 + 3701, 1, -9))[1] == [StartJob(2, KEY, T0 + 3701 + 3600)]


def test_cold_pool_starts_one_worker_per_request():
    """A cold pool starts on request, not again while one starts or is ready, and once per request after a failure."""
    state, actions = fresh(min_ready=0)
    assert actions == []
    state, actions = run(state, Requested(T0 + 1, KEY), Requested(T0 + 1, KEY))
    assert actions == [StartJob(1, KEY, T0 + 1 + 3600)]
    failed, _ = run(state, JobEnded(T0 + 2, 1, 1))
    assert run(failed, Tick(T0 + 100))[1] == []
    assert run(failed, Requested(T0 + 2, KEY), Tick(T0 + 2.1))[1] == []
    assert run(failed, Requested(T0 + 2, KEY), Tick(T0 + 3))[1] == [StartJob(2, KEY, T0 + 3 + 3600)]
    ready, actions = run(state, StatusSeen(T0 + 2, 1), Requested(T0 + 3, KEY))
    assert actions == []
    assert run(ready, StatusSeen(T0 + 3601, 1), JobEnded(T0 + 3602, 1, 0))[1] == []


def test_stop_stops_all_and_starts_nothing():
    """StopRequested stops every pilot once; nothing starts any more, and ends are no failures."""
    state, _ = fresh(min_ready=2)
    state, actions = step(state, StopRequested(T0 + 1))
    assert actions == [StopJob(1), StopJob(2)]
    state, actions = run(state, StopRequested(T0 + 2), JobEnded(T0 + 3, 1, -15), Tick(T0 + 999), Requested(T0, KEY))
    assert actions == []


def test_renewal_surge_gives_a_full_pool_room_for_its_successors():
    """A pool of 1/1 with a surge of 1 gets its successor before the end, one only, and never one more otherwise."""
    state, _ = run(fresh(max_workers=1, renewal_surge=1)[0], StatusSeen(T0 + 3479, 1))
    assert pilot(state).phase is Phase.READY
    state, actions = run(state, StatusSeen(T0 + 3480, 1), Tick(T0 + 3481))
    assert actions == [StartJob(2, KEY, T0 + 3480 + 3600)]
    early, _ = run(fresh(max_workers=1, renewal_surge=1)[0], Announced(T0 + 1, 1), StatusSeen(T0 + 1, 1))
    early, actions = run(early, Tick(T0 + 12), Tick(T0 + 42), Tick(T0 + 43))
    assert [type(action) for action in actions] == [StopJob, ReportFailure]
    crowd, _ = fresh(min_ready=3, max_workers=3, renewal_surge=2)
    crowd, _ = run(crowd, *(StatusSeen(T0 + 3475, number) for number in (1, 2, 3)))
    _, actions = run(crowd, Tick(T0 + 3480))
    assert [type(action) for action in actions] == [StartJob, StartJob]


def test_a_relieved_pilot_gets_no_new_requests():
    """Once the successor is ready the old one drains, though its lease goes on; without the successor it is back."""
    state, _ = run(fresh()[0], StatusSeen(T0 + 3490, 1))
    assert pilot(state).phase is Phase.READY
    state, _ = run(state, StatusSeen(T0 + 3491, 2), Tick(T0 + 3491.1))
    assert (pilot(state).phase, pilot(state, 2).phase) == (Phase.DRAINING, Phase.READY)
    state, _ = run(state, StatusSeen(T0 + 3492, 1))
    assert pilot(state).phase is Phase.DRAINING
    state, _ = run(state, JobEnded(T0 + 3493, 2, 1), StatusSeen(T0 + 3494, 1))
    assert pilot(state).phase is Phase.READY


def adopt(*adoptees, **changes):
    """A plan that begins with what an earlier run left."""
    return step(State((PoolState(replace(SPEC, **changes)),)), Adopted(T0, adoptees))


@pytest.mark.parametrize(
    ("left_as", "announced", "phase"),
    [
        (Phase.READY, True, Phase.READY),
        (Phase.DRAINING, True, Phase.DRAINING),
        (Phase.LOST, True, Phase.STARTING),
        (Phase.STARTING, True, Phase.STARTING),
        (Phase.STARTING, False, Phase.STARTING),
    ],
)
def test_adopted(left_as, announced, phase):
    """A worker of an earlier run is as it was, and is lost when it does not speak; nothing is started for its place."""
    state, actions = adopt(Adoptee(7, KEY, T0 + 1000, left_as, announced))
    one = pilot(state, 7)
    assert (one.phase, one.since, one.expires, one.announced) == (phase, T0, T0 + 1000, announced)
    assert (one.seen, one.submitted, one.ran_from) == (T0 if announced else None, T0 + 1000 - 3600, T0)
    assert actions == ([StartJob(8, KEY, T0 + 3600)] if phase is Phase.DRAINING else [])
    assert state.next_number == 8 + len(actions)
    state, _ = run(state, Tick(T0 + 10))
    assert pilot(state, 7).phase is (Phase.LOST if announced else Phase.STARTING)


def test_adopted_and_not_wanted():
    """One that serves something else, and each one too many, is stopped; what is missing is started as room allows."""
    wanted = [Adoptee(number, KEY, T0 + 1000, Phase.READY, announced=True) for number in (1, 2, 3)]
    state, actions = adopt(*wanted)
    assert actions == [StopJob(3)]
    assert pilot(state, 3).stopping
    state, actions = adopt(replace(wanted[0], wanted=False))
    assert actions == [StopJob(1), StartJob(2, KEY, T0 + 3600)]
    assert adopt(replace(wanted[0], wanted=False), max_workers=1)[1] == [StopJob(1)]


def test_adopted_with_a_number_twice_is_refused():
    """Two pilots of one number, or of a pool that is not there, are an error of the driver."""
    one = Adoptee(1, KEY, T0 + 1000, Phase.READY, announced=True)
    with pytest.raises(ValueError, match="not all different"):
        adopt(one, one)
    with pytest.raises(LookupError):
        adopt(replace(one, key=PoolKey("x", "y")))


@pytest.mark.parametrize(
    "event", [JobEnded(T0, 9, 0), StatusSeen(T0, 9), Announced(T0, 9), Requested(T0, PoolKey("x", "y"))]
)
def test_event_about_nothing_is_refused(event):
    """An event about a pilot or pool that is not there is an error of the driver."""
    with pytest.raises(LookupError):
        step(fresh()[0], event)


def test_status_of_a_stopping_pilot_changes_no_phase():
    """A pilot that was told to stop goes on to be shown as it was, and never counts again."""
    state, _ = run(fresh()[0], Tick(T0 + 60))
    state, actions = run(state, StatusSeen(T0 + 60.1, 1, running=3), Announced(T0 + 60.2, 1, restarted=True))
    assert (pilot(state).phase, pilot(state).stopping, actions) == (Phase.STARTING, True, [])


@given(st.integers(0, 10), st.integers(1, 10), st.booleans())
def test_a_pool_fills_to_what_it_wants(min_ready, max_workers, requested):
    """The first tick starts min_ready workers, or one on request, and never more than max_workers."""
    spec = replace(SPEC, min_ready=min_ready, max_workers=max_workers)
    _, actions = step(State((PoolState(spec, requested=requested),)), Tick(T0))
    assert len(actions) == min(max(min_ready, int(requested)), max_workers)


def test_states_are_values():
    """A step leaves the state it was given as it was."""
    before, _ = fresh()
    copy = State((PoolState(SPEC, (Pilot(1, Phase.STARTING, T0, T0 + 3600, submitted=T0, ran_from=T0),)),), LIMITS, 2)
    assert before == copy
    run(before, *READY, JobEnded(T0 + 5, 1, 1))
    assert before == copy
