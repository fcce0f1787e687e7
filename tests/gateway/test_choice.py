"""Which worker gets a request, and which cluster starts one: the table of the choice, row by row."""

from dataclasses import replace

import msgspec
import pytest

from stream_gateway.choice import FirstTokens, Option, best, to_wake
from stream_gateway.standing import Standing

A = Option(b"a" * 16, "alpha", max_requests=8)
B = Option(b"b" * 16, "beta", max_requests=8)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"ours": 8}, {"ours": 7}),
        ({"running": 8}, {"ours": 7, "first_token_ms": 9_000}),
        ({"full": True}, {"ours": 7}),
        ({"unreached": True}, {"ours": 7, "first_token_ms": 9_000}),
        ({"cluster_unreached": True, "priority": 9}, {"failure_rate": 1.0}),
        ({"online": False, "priority": 9}, {"ours": 7, "failure_rate": 1.0}),
        ({"failure_rate": 0.6, "priority": 9}, {"ours": 7}),
        ({"failure_rate": 0.6}, {"failure_rate": 0.3, "ours": 7}),
        ({"ours": 2}, {"ours": 1, "first_token_ms": 9_000}),
        ({"ours": 0, "waiting": 2}, {"ours": 1, "first_token_ms": 9_000}),
        ({"ours": 1, "running": 5}, {"ours": 3, "running": 1}),
        ({"first_token_ms": 900, "priority": 9}, {"first_token_ms": 400}),
        ({"first_token_ms": 900, "priority": 9}, {"first_token_ms": None}),
        ({"first_token_ms": 20}, {"first_token_ms": 90, "priority": 1}),
        ({"ours": 0}, {"ours": 1, "priority": 1}),
        ({"ours": 1}, {"ours": 0}),
        ({"first_token_ms": 90}, {"first_token_ms": 20}),
        ({"failure_rate": 0.2}, {"failure_rate": 0.24, "priority": 1}),
    ],
    ids=str,
)
def test_what_goes_before_what(worse: dict, better: dict) -> None:
    """The better worker gets the request, whichever is listed first."""
    first, second = msgspec.structs.replace(A, **worse), msgspec.structs.replace(B, **better)
    assert best([first, second]) == best([second, first]) == second


def test_one_with_trouble_is_better_than_none() -> None:
    """A full, failing, silent worker is asked all the same where there is no other; without any there is none."""
    poor = msgspec.structs.replace(
        A, ours=99, full=True, unreached=True, cluster_unreached=True, online=False, failure_rate=1.0
    )
    assert best([poor]) == poor
    assert best([]) is None


@pytest.mark.parametrize(
    ("option", "places"),
    [({}, 8), ({"ours": 3, "running": 5}, 3), ({"ours": 9}, 0), ({"waiting": 8}, 8), ({"full": True}, 0)],
    ids=str,
)
def test_places(option: dict, places: int) -> None:
    """What a worker would take now: by its own count or ours, not by its engine's queue, and none once it refused."""
    assert msgspec.structs.replace(A, **option).places == places


HOT, HOT_FULL = Standing("hot", ready=1, room=1), Standing("hot", ready=1)
STARTING = Standing("starting", starting=1, room=1, ready_in_s=40)
QUEUED = Standing("starting", starting=1)
COLD, OFFLINE = Standing("cold", room=2), Standing("offline", "its endpoint is offline")


@pytest.mark.parametrize(
    ("alpha", "beta", "priorities", "woken"),
    [
        (COLD, STARTING, {}, "beta"),
        (COLD, HOT, {}, "beta"),
        (OFFLINE, COLD, {"alpha": 9}, "beta"),
        (HOT_FULL, COLD, {}, "beta"),
        (QUEUED, COLD, {}, "beta"),
        (QUEUED, HOT_FULL, {}, "alpha"),
        (COLD, COLD, {"beta": 1}, "beta"),
        (STARTING, replace(STARTING, ready_in_s=10), {"alpha": 9}, "beta"),
        (OFFLINE, OFFLINE, {"beta": 1}, "beta"),
    ],
)
def test_where_a_worker_is_started(alpha: Standing, beta: Standing, priorities: dict, woken: str) -> None:
    """Where one can come, with room, the soonest, by priority; offline ones hear of it too when there is no other."""
    assert to_wake({"alpha": alpha, "beta": beta}, priorities) == woken
    assert to_wake({}, {}) is None


def test_first_tokens_are_averaged_and_forgotten() -> None:
    """A measurement moves the average by a part; a minute later nothing is known, and a slow cluster is tried again."""
    measured = FirstTokens()
    assert measured.of("alpha", "m", 0) is None
    measured.note("alpha", "m", 1000, 0)
    measured.note("alpha", "m", 0, 10)
    assert measured.of("alpha", "m", 10) == pytest.approx(700)
    assert measured.of("beta", "m", 10) is None
    assert measured.of("alpha", "m", 70) is None
    measured.note("alpha", "m", 50, 80)
    assert measured.of("alpha", "m", 80) == 50
