"""How many workers a pool has: out on load and on those who wait, in when nobody needs them."""

import pytest
from hpc_dispatch.plans import KEY, T0, fresh, pilot, ready, run, started

from stream_hpc_dispatch.plan import JobEnded, JobSeen, Phase, Requested, StatusSeen, StopJob, Tick

BIG = {"max_workers": 8, "max_requests": 10}


@pytest.mark.parametrize(
    ("waiting", "already", "starts"),
    [(1, 0, 1), (10, 0, 1), (11, 0, 2), (35, 0, 4), (500, 0, 8), (35, 3, 1), (35, 4, 0), (20, 3, 0)],
)
def test_a_burst_starts_what_it_needs_once(waiting, already, starts):
    """Waiting requests over max_requests, rounded up, less what is on its way; never above max_workers."""
    state, _ = fresh(min_ready=already, **BIG)
    state, actions = run(state, Requested(T0 + 1, KEY, waiting, "a"))
    assert len(started(actions)) == starts
    again, actions = run(state, *(Requested(T0 + 1 + second, KEY, waiting, "a") for second in range(20)))
    assert started(actions) == []
    assert len(again.pools[0].pilots) == already + starts


def test_counts_of_gateways_add_up_and_replace_each_other():
    """Each gateway's newest count holds, for five seconds; what has begun since is no longer waiting."""
    state, _ = fresh(min_ready=0, **BIG)
    state, actions = run(state, Requested(T0, KEY, 20, "a"), Requested(T0, KEY, 9, "b"), Requested(T0, KEY, 5, "a"))
    assert started(actions) == [1, 2, 3]
    assert started(run(state, Requested(T0 + 1, KEY, 25, "a"))[1]) == [4]
    assert started(run(state, Requested(T0 + 4.9, KEY, 20, "b"))[1]) == []
    assert started(run(state, Requested(T0 + 5, KEY, 31, "b"))[1]) == [4]
    busy, _ = run(state, *ready(T0 + 1, 1, 2, 3))
    busy, actions = run(busy, *(StatusSeen(T0 + 2, number, running=4, served=4) for number in (1, 2, 3)))
    assert started(actions) == []


@pytest.mark.parametrize(
    ("running", "waiting", "cache", "starts"),
    [
        ((7, 7), 0, None, 0),
        ((7, 8), 0, None, 1),
        ((5, 5), 5, None, 1),
        ((10, 10), 20, None, 4),
        ((1, 0), 0, 0.9, 1),
        ((1, 0), 0, 0.89, 0),
        ((0, 0), 0, 1.0, 0),
    ],
)
def test_load_starts_another(running, waiting, cache, starts):
    """At three quarters of the ready workers' places, or nine tenths of their caches, another worker is started."""
    state, _ = fresh(min_ready=2, **BIG)
    state, _ = run(state, *ready(T0 + 1, 1, 2))
    facts = {"cache_use": cache}
    state, actions = run(
        state,
        StatusSeen(T0 + 2, 1, running=running[0], **facts),
        StatusSeen(T0 + 2, 2, running=running[1], waiting=waiting, **facts),
        Tick(T0 + 3),
    )
    assert len(started(actions)) == starts


def test_free_places_take_those_who_wait():
    """Requests that fit on the workers that are there start none."""
    state, _ = run(fresh(**BIG)[0], *ready(T0 + 1, 1, running=3))
    assert started(run(state, Requested(T0 + 2, KEY, 7, "a"))[1]) == []
    assert started(run(state, Requested(T0 + 2, KEY, 8, "a"))[1]) == [2]


def idle(state, first, last, *numbers, running=0):
    """Heartbeats of workers, with ticks between them."""
    actions = []
    for second in range(int(first), int(last) + 1, 5):
        for number in numbers:
            state, more = run(state, StatusSeen(T0 + second, number, running=running))
            actions += more
        state, more = run(state, Tick(T0 + second))
        actions += more
    return state, actions


def test_idle_worker_goes_and_the_last_ones_stay():
    """Above min_ready a worker without requests takes nothing new after idle_timeout_s, then is stopped, once."""
    state, actions = fresh(min_ready=0, max_workers=2, idle_timeout_s=100, max_requests=10)
    state, actions = run(state, Requested(T0, KEY, 11, "a"), *ready(T0 + 1, 1), *ready(T0 + 30, 2))
    state, actions = idle(state, 5, 100, 1, 2)
    assert (actions, pilot(state).phase) == ([], Phase.READY)
    state, actions = idle(state, 105, 110, 1, 2)
    assert actions == [StopJob(1)]
    state, actions = idle(state, 115, 300, 1, 2)
    assert actions == [StopJob(2)]
    state, actions = run(state, JobEnded(T0 + 301, 1, 0), JobEnded(T0 + 301, 2, 0), Tick(T0 + 900))
    assert (actions, state.pools[0].pilots, state.pools[0].failures) == ([], (), 0)
    kept, _ = run(fresh(min_ready=1, idle_timeout_s=100)[0], *ready(T0 + 1, 1))
    assert idle(kept, 5, 900, 1)[1] == []


def test_a_busy_worker_is_never_stopped():
    """One that has a request only takes nothing new; it is stopped when it has none, or is back when it is needed."""
    state, _ = fresh(min_ready=1, max_workers=2, idle_timeout_s=100, max_requests=10)
    state, _ = run(state, *ready(T0 + 1, 1, running=10), *ready(T0 + 2, 2, running=1), StatusSeen(T0 + 3, 1, running=1))
    state, actions = idle(state, 5, 400, 1, 2, running=1)
    leaving = [one for one in state.pools[0].pilots if one.retiring]
    assert (actions, [one.phase for one in leaving]) == ([], [Phase.DRAINING])
    other = 3 - leaving[0].number
    needed, actions = run(state, StatusSeen(T0 + 401, other, running=8))
    assert (actions, pilot(needed, leaving[0].number).phase) == ([], Phase.READY)
    assert run(state, StatusSeen(T0 + 401, leaving[0].number))[1] == [StopJob(leaving[0].number)]


def test_no_worker_goes_younger_than_its_start_took():
    """A worker that took 50 s to start stays at least as long, whatever the idle timeout."""
    state, _ = run(fresh(min_ready=0, idle_timeout_s=5)[0], Requested(T0, KEY), *ready(T0 + 50, 1))
    state, actions = idle(state, 50, 95, 1)
    assert (actions, pilot(state).retiring) == ([], False)
    assert idle(state, 100, 110, 1)[1] == [StopJob(1)]


def test_the_least_lease_goes_first():
    """Of two idle workers the one whose lease ends sooner is the one too many."""
    state, _ = fresh(min_ready=1, max_workers=2, idle_timeout_s=100, max_requests=10)
    state, actions = run(state, *ready(T0 + 1, 1), Tick(T0 + 9), StatusSeen(T0 + 9, 1, running=8))
    assert started(actions) == [2]
    state, _ = run(state, *ready(T0 + 10, 2))
    assert pilot(state).expires < pilot(state, 2).expires
    assert idle(state, 15, 130, 1, 2)[1] == [StopJob(1)]


def test_queued_jobs_that_nobody_waits_for_are_taken_back():
    """The newest first, after idle_timeout_s; that is no failure."""
    state, _ = run(fresh(min_ready=1, idle_timeout_s=100, **BIG)[0], Requested(T0 + 1, KEY, 25, "a"))
    assert len(state.pools[0].pilots) == 3
    state, _ = run(state, *(JobSeen(T0 + 5, number, queued=True) for number in (1, 2, 3)))
    assert run(state, Tick(T0 + 104))[1] == []
    state, actions = run(state, Tick(T0 + 106))
    assert actions == [StopJob(3), StopJob(2)]
    state, actions = run(state, JobEnded(T0 + 107, 3, None), JobEnded(T0 + 107, 2, None))
    assert (actions, state.pools[0].failures) == ([], 0)


def test_a_job_for_each_request():
    """With max_requests 1 each waiting request gets a job; one that served ends by itself, which is no failure."""
    state, actions = fresh(min_ready=0, max_workers=4, max_requests=1)
    state, actions = run(state, Requested(T0, KEY, 3, "a"), Requested(T0 + 1, KEY, 3, "a"))
    assert started(actions) == [1, 2, 3]
    state, _ = run(state, *ready(T0 + 2, 1, 2, 3))
    state, actions = run(state, *(StatusSeen(T0 + 3, number, running=1, served=1) for number in (1, 2)))
    assert started(actions) == []
    state, actions = run(state, Requested(T0 + 3, KEY, 3, "a"))
    assert started(actions) == [4]  # one of the three fits on the third worker; a fifth job would be above max_workers
    state, actions = run(state, JobEnded(T0 + 4, 1, 0), JobEnded(T0 + 4, 3, 0))
    assert (started(actions), state.pools[0].failures) == ([5], 0)
    assert started(run(state, Requested(T0 + 5, KEY, 2, "a"))[1]) == []
    early, _ = run(fresh(max_requests=1)[0], JobEnded(T0 + 1, 1, 0))
    assert early.pools[0].failures == 1


def test_a_busy_pool_is_renewed_as_it_is():
    """As many successors as workers were needed of late, though at that moment there is nothing to do."""
    state, _ = fresh(min_ready=0, renewal_surge=2, max_requests=10)
    state, _ = run(state, Requested(T0, KEY, 11, "a"), *ready(T0 + 1, 1, 2))
    for second in range(5, 3480, 5):
        load = 6 if second < 3400 else 0
        state, _ = run(state, *(StatusSeen(T0 + second, number, running=load) for number in (1, 2)), Tick(T0 + second))
    assert [one.number for one in state.pools[0].pilots] == [1, 2]
    _, actions = run(state, Tick(T0 + 3480))
    assert started(actions) == [3, 4]


def test_idleness_is_believed_once_gateways_know():
    """A heartbeat of the moment when it was let go may be older than a request on its way: the one 2 s later counts."""
    state, _ = fresh(min_ready=0, idle_timeout_s=100, max_requests=10)
    state, _ = run(state, Requested(T0, KEY, 1, "a"), *ready(T0 + 1, 1))
    state, actions = run(state, StatusSeen(T0 + 101, 1), Tick(T0 + 102))
    assert (actions, pilot(state).phase, pilot(state).retiring) == ([], Phase.DRAINING, True)
    let_go = pilot(state).since
    state, actions = run(state, StatusSeen(let_go + 1.9, 1))
    assert actions == []
    assert run(state, StatusSeen(let_go + 2, 1))[1] == [StopJob(1)]
