"""A cluster's node hours a day: reserved before a job starts, given back when it ends early, never exceeded."""

import pytest
from hpc_dispatch.plans import KEY, T0, fresh, pilot, ready, run, started
from msgspec.structs import replace

from stream_core.errors import ConfigError
from stream_hpc_dispatch import budget, journal
from stream_hpc_dispatch.diary import Diary
from stream_hpc_dispatch.plan import (
    Adopted,
    Adoptee,
    ClusterSpec,
    ClusterState,
    JobEnded,
    JobSeen,
    Phase,
    Requested,
    StartJob,
    State,
    Tick,
    step,
)

DAY = 86_400.0
OVERHANG_S = 90.0
"""The grace of a lease, and what an ending job gets."""


def test_lease_is_shortened_to_what_is_left():
    """Of two workers the second gets a lease as long as the day's budget still pays for."""
    _, actions = fresh(min_ready=2, hours=1.5)
    assert actions == [StartJob(1, KEY, T0 + 3600), StartJob(2, KEY, T0 + 5400 - 3600 - 2 * OVERHANG_S)]


def test_nodes_count():
    """A job of four nodes costs four times as much."""
    _, actions = fresh(nodes=4, hours=2)
    assert actions == [StartJob(1, KEY, T0 + 1800 - OVERHANG_S)]
    state, _ = fresh(nodes=4, hours=10, walltime_s=600)
    assert budget.left_s(state, "here", 0, T0) == 36_000 - 4 * (600 + OVERHANG_S)
    state, _ = run(state, JobEnded(T0 + 100, 1, 1))
    assert budget.left_s(state, "here", 0, T0 + 100) == 36_000 - 4 * 100


def test_no_job_for_a_useless_lease_and_words_that_say_why():
    """What would not outlast its own start by a minute is not started; the reason names the numbers and the reset."""
    state, actions = fresh(hours=0.05)
    assert actions == []
    assert state.pools[0].blocked == (
        "the budget of cluster 'here', 0.05 node-hours a day, has 0.05 left and a worker needs 0.06;"
        " a new day begins at 00:00 UTC"
    )
    assert started(run(state, Tick(DAY - 100))[1]) == [1]  # the new day's budget pays for the rest


def test_time_of_a_job_that_ends_early_is_given_back():
    """A job that ended after ten minutes has used ten minutes."""
    state, _ = run(fresh(hours=1.0)[0], JobEnded(T0 + 600, 1, 1))
    state, actions = run(state, Tick(T0 + 601))
    assert actions == [StartJob(2, KEY, T0 + 601 + 3600 - 600 - OVERHANG_S)]
    state, _ = run(state, JobEnded(T0 + 602, 2, None, "refused", started=False))
    assert budget.left_s(state, "here", 0, T0 + 602) == 3000


def test_time_in_the_queue_is_not_charged():
    """While a job is seen waiting its reservation shrinks with its lease."""
    state, _ = fresh(hours=2)
    before = budget.left_s(state, "here", 0, T0)
    state, _ = run(state, JobSeen(T0 + 1000, 1, queued=True))
    assert budget.left_s(state, "here", 0, T0 + 1000) == before + 1000


def test_a_lease_across_midnight_is_charged_to_both_days():
    """The day's rest is paid by the day, what comes after 00:00 UTC by the next."""
    start = DAY - 600
    cluster = ClusterState(ClusterSpec("here", node_s_per_day=1000))
    state = replace(fresh(min_ready=0)[0], clusters=(cluster,))
    state, actions = step(state, Requested(start, KEY))
    assert actions == [StartJob(1, KEY, DAY + 1000 - OVERHANG_S)]
    assert (budget.left_s(state, "here", 0, start), budget.left_s(state, "here", 1, start)) == (400, 0)
    state, _ = run(state, JobEnded(DAY + 300, 1, 0))
    assert budget.left_s(state, "here", 1, DAY + 300) == 700


def test_a_job_that_overruns_is_charged_until_it_is_gone():
    """A cluster that does not end a job spends what others could have had."""
    state, _ = run(fresh(hours=2)[0], *ready(T0 + 1, 1))
    late = T0 + 3600 + OVERHANG_S + 500
    assert budget.left_s(state, "here", 0, late) == 7200 - 3600 - OVERHANG_S - 500


def beginning(hours=2.0, **changes):
    """A plan before its first event."""
    state, _ = fresh(hours=hours, **changes)
    return State((replace(state.pools[0], pilots=()),), clusters=state.clusters)


def test_what_was_used_today_survives_a_kill():
    """Ended jobs, and those that ran when the program was killed, count; an adopted one is charged from then on."""
    state, _ = run(fresh(hours=3, min_ready=2)[0], *ready(T0 + 50, 1), JobEnded(T0 + 700, 2, 1))
    written = journal.write(state)
    again = journal.read(written, beginning(3), T0 + 1000)
    assert budget.left_s(again, "here", 0, T0 + 1000) == 3 * 3600 - 700 - 1000
    again, _ = step(again, Adopted(T0 + 1000, (Adoptee(1, KEY, T0 + 3600, Phase.READY, announced=True),)))
    assert budget.left_s(again, "here", 0, T0 + 1000) == 3 * 3600 - 700 - 3600 - OVERHANG_S
    assert budget.left_s(journal.read(written, beginning(3), T0 + DAY), "here", 1, T0 + DAY) == 3 * 3600
    assert again.pools[0].startups == (50,)
    assert journal.write(again) == journal.write(replace(again, next_number=99))


def test_adopted_without_a_journal_is_charged_from_its_record():
    """With another state_dir the lease's record says since when its job may have run."""
    adoptee = Adoptee(1, KEY, T0 + 3600, Phase.READY, announced=True, ran_from=T0)
    state, _ = step(beginning(), Adopted(T0 + 1000, (adoptee,)))
    assert budget.left_s(state, "here", 0, T0 + 1000) == 7200 - 3600 - OVERHANG_S
    assert pilot(state).ran_from == T0


@pytest.mark.parametrize("junk", [b"{", b'{"version": 2}', b'{"spent": 3}'])
def test_a_journal_that_cannot_be_read_is_an_error(tmp_path, junk):
    """The budget is a hard limit: what was used is never guessed; the error names the file."""
    (tmp_path / "plan.json").write_bytes(junk)
    diary = Diary(tmp_path / "plan.json", lambda *_: None)
    with pytest.raises(ConfigError, match=r"plan\.json: the plan's journal"):
        diary.read(beginning(), T0)


def test_the_diary_writes_what_has_changed(tmp_path):
    """One file, private, written when it would say something else; a fault is counted and tried again."""
    faults = []
    file = tmp_path / "plan.json"
    diary = Diary(file, lambda kind, _: faults.append(kind))
    state, _ = fresh(hours=2)
    assert diary.read(state, T0) is state
    assert not diary.found
    diary.write(state)
    assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    diary.write(state)
    assert not file.exists()
    lost = Diary(tmp_path / "no folder" / "plan.json", lambda kind, _: faults.append(kind))
    lost.write(state)
    lost.write(state)
    assert faults == ["journal_not_written"] * 2
    diary.write(run(state, JobEnded(T0 + 60, 1, 1))[0])
    second = Diary(file, lambda *_: None)
    assert second.read(beginning(), T0 + 70).clusters[0].spent[0].node_s == 60
    assert second.found
