"""Every failure becomes words, is tried again within limits, and leaves no job behind."""

import pytest
from hpc_dispatch.plans import KEY, T0, fresh, pilot, ready, run, started
from msgspec.structs import replace

from stream_hpc_dispatch import failures, reasons
from stream_hpc_dispatch.plan import ClusterSeen, JobEnded, ReportFailure, Requested, StatusSeen, StopJob, Tick
from stream_hpc_dispatch.pool import model_state


def kinds(actions):
    """Types of actions."""
    return [type(action) for action in actions]


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "the GPU's memory is too small"),
        ("ValueError: No available memory for the cache blocks. Try increasing", "the GPU's memory is too small"),
        ("RuntimeError: No CUDA GPUs are available", "no GPU"),
        ("RuntimeError: Found no NVIDIA driver on your system", "no GPU"),
        ("RuntimeError: Failed to infer device type", "no GPU"),
        ("OSError: /models/x is not a local folder and is not a valid model identifier", "the model is not where"),
        ("huggingface_hub.errors.HFValidationError: Repo id must be in the form", "the model is not where"),
        ("OSError: x does not appear to have a file named config.json", "the model is not where"),
        ("OSError: [Errno 98] Address already in use", "port is in use"),
        ("OSError: [Errno 28] No space left on device", "disk, or its quota, is full"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "memory is too small for the engine"),
        ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 12:00 DUE TO TIME LIMIT ***", "at its walltime"),
        ("bash: stream-worker: command not found", "missing on the node"),
    ],
)
def test_what_engines_write_is_understood(line, meaning):
    """A plain sentence, then how it ended, then the line that says it, though others follow."""
    words = reasons.ended(1, f"loading\n{line}\nProcess ended\n", left_s=100)
    assert meaning in words
    assert words.endswith(f"the worker ended with exit code 1; its log says: {line}")
    told = reasons.gave_up(f"the engine ended with exit code 1\n{line}\nbye")
    assert meaning in told
    assert told.endswith(f"the engine ended with exit code 1; its log says: {line}")


def test_words_without_a_known_line():
    """The cluster's own words, and the log's last line, are quoted as they are."""
    words = reasons.ended(None, "", left_s=7, told="cancelled by root")
    assert words == "the worker ended, 7 s before its lease (its cluster says: cancelled by root); its log is empty"
    words = reasons.ended(None, "loading", left_s=7, told="walltime reached")
    assert words.startswith("the batch system ended it at its walltime: the worker ended")
    assert words.endswith("its log ends: loading")
    assert reasons.gave_up("the engine ended\nTraceback\nboom") == "the engine ended; its log ends: boom"
    assert reasons.gave_up("the engine ended") == "the engine ended"


def test_a_worker_that_gives_up_is_stopped_at_once():
    """Its own words are the reason; its job is stopped once, and its end is no second failure."""
    said = "the engine ended with exit code 1\nRuntimeError: No CUDA GPUs are available"
    state, actions = run(fresh()[0], StatusSeen(T0 + 5, 1, engine_ready=False, failed=said))
    assert kinds(actions) == [StopJob, ReportFailure]
    assert "no GPU" in state.pools[0].reason
    state, actions = run(state, StatusSeen(T0 + 5.1, 1, failed=said), JobEnded(T0 + 5.2, 1, 1))
    assert (actions, state.pools[0].failures) == ([], 1)
    assert failures.rate(state, "here") == 1.0


def test_after_too_many_failures_there_is_a_long_pause():
    """The third failure in a row of three allowed ones: no try for an hour, and the state says until when."""
    state, now = fresh(max_failures=3, retry_after_s=3600)[0], T0
    for number in (1, 2, 3):
        state, actions = run(state, JobEnded(now + 1, number, 1, "boom"))
        now += 1 + actions[0].retry_in_s
        if number < 3:
            state, actions = run(state, Tick(now))
            assert started(actions) == [number + 1]
    words = model_state(state, state.pools[0]).reason
    assert words.startswith("3 starts in a row failed: the worker ended with exit code 1; its log ends: boom;")
    assert words.endswith("no further try before 01:16 UTC on 1970-01-01")
    assert run(state, Tick(now - 1), Requested(now - 1, KEY, 9, "a"))[1] == []
    state, actions = run(state, Tick(now))
    assert started(actions) == [4]
    _, actions = run(state, JobEnded(now + 1, 4, 1))
    assert (actions[0].failures, actions[0].retry_in_s) == (4, 3600)


def test_an_offline_cluster_starts_nothing_and_keeps_what_runs():
    """No start and no failure while it is away, the words say so; back, it starts at once."""
    state, _ = fresh(min_ready=2)
    state, _ = run(state, *ready(T0 + 1, 1), ClusterSeen(T0 + 2, "here", online=False, reason="endpoint stopped"))
    state, actions = run(state, JobEnded(T0 + 3, 2, None, "refused", started=False), StatusSeen(T0 + 9, 1))
    assert (actions, state.pools[0].failures, pilot(state).stopping) == ([], 0, False)
    told = model_state(state, state.pools[0])
    assert (told.state, told.ready) == ("hot", 1)
    assert told.reason.endswith("no further one is started: cluster 'here' is offline: endpoint stopped")
    gone, actions = run(state, JobEnded(T0 + 10, 1, -9), Tick(T0 + 100))
    assert kinds(actions) == [ReportFailure]
    assert model_state(gone, gone.pools[0]).state == "offline"
    assert model_state(gone, gone.pools[0]).reason == "cluster 'here' is offline: endpoint stopped"
    back, actions = run(gone, ClusterSeen(T0 + 101, "here", online=True))
    assert (started(actions), back.pools[0].failures, back.pools[0].blocked) == ([3, 4], 0, "")
    assert run(back, ClusterSeen(T0 + 102, "elsewhere", online=False))[0] == back


def test_failure_rate_is_of_the_last_hour():
    """Failed pilots over all that ended within the hour or are there; an hour later it is forgotten."""
    state, _ = run(fresh()[0], JobEnded(T0 + 1, 1, 1), Tick(T0 + 2), *ready(T0 + 3, 2))
    assert failures.rate(state, "here") == 0.5
    state, _ = run(state, StatusSeen(T0 + 3600, 2), Tick(T0 + 3600))
    assert failures.rate(state, "here") > 0
    state, _ = run(state, StatusSeen(T0 + 3601, 2), Tick(T0 + 3601))
    assert failures.rate(state, "here") == 0
    assert failures.rate(replace(state, clusters=()), "here") == 0
