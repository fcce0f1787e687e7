"""How a model stands over several clusters, and how that is said."""

from dataclasses import replace

import pytest

from stream_gateway.standing import Standing, in_words, overall

HOT = Standing("hot", "1 of 1 workers ready", ready=1, first_token_ms=20, cold_start="wait", wait_s=10)
STARTING = Standing("starting", "booting", starting=2, queue_position=3, ready_in_s=40, cold_start="next", wait_s=60)
COLD = Standing("cold", "no worker runs", room=1, cold_start="next", wait_s=20)
OFFLINE = Standing("offline", "its endpoint is offline", cold_start="wait", wait_s=99)


def test_the_best_state_counts() -> None:
    """Hot before starting before cold before offline; workers are added up; a hot one needs no reason."""
    whole = overall({"a": OFFLINE, "b": COLD, "c": STARTING, "d": HOT})
    assert (whole.state, whole.reason, whole.ready, whole.starting, whole.room) == ("hot", "", 1, 2, 1)
    assert (whole.first_token_ms, whole.queue_position, whole.ready_in_s) == (20, None, None)
    whole = overall({"a": OFFLINE, "b": COLD, "c": STARTING})
    assert (whole.state, whole.queue_position, whole.ready_in_s) == ("starting", 3, 40)
    assert whole.reason == "a: its endpoint is offline; b: no worker runs; c: booting"
    assert overall({"a": COLD, "b": OFFLINE}).state == "cold"
    assert overall({}) == Standing("offline", "no cluster offers it")
    assert overall({"a": OFFLINE}) is OFFLINE


def test_the_policy_of_those_that_may_wake() -> None:
    """A cluster that can't start a worker has no say in whether, and how long, one is waited for."""
    whole = overall({"a": OFFLINE, "b": COLD, "c": STARTING})
    assert (whole.cold_start, whole.wait_s) == ("next", 60)
    whole = overall({"a": replace(COLD, cold_start="wait"), "b": STARTING})
    assert (whole.cold_start, whole.wait_s) == ("wait", 60)


@pytest.mark.parametrize(
    ("standing", "comes", "awaited"),
    [
        (HOT, False, True),
        (replace(HOT, room=1), True, True),
        (replace(HOT, starting=1), True, True),
        (STARTING, True, False),
        (COLD, True, False),
        (replace(COLD, cold_start="wait"), True, True),
        (replace(COLD, room=0), False, False),
        (OFFLINE, False, False),
        (replace(OFFLINE, starting=1), True, True),
        (replace(OFFLINE, ready_in_s=2.0), True, True),
        (replace(OFFLINE, room=5), False, False),
    ],
)
def test_whether_a_worker_comes(standing: Standing, comes: bool, awaited: bool) -> None:
    """Offline is final unless a try is under way; cold and hot need room; `auto` waits only by the pool's policy."""
    assert (standing.comes, standing.awaited) == (comes, awaited)


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (replace(STARTING, reason=""), "queued, position 3, about 40 s"),
        (Standing("starting", ready_in_s=0.2), "starting, about 1 s"),
        (Standing("starting", ready_in_s=600), "starting, about 10 min"),
        (Standing("starting", "pulling\n the  model"), "starting (pulling the model)"),
        (Standing("cold"), "asked for"),
        (HOT, "all workers are busy"),
        (OFFLINE, "offline (its endpoint is offline)"),
    ],
)
def test_in_words(standing: Standing, words: str) -> None:
    """One line, with what is known."""
    assert in_words(standing) == words
