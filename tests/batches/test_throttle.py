"""The throttle and the retries, as tables: what is seen comes in, a number comes out."""

from dataclasses import replace

import pytest

from stream_core.errors import (
    InvalidRequest,
    LimitExceeded,
    NotAllowed,
    StreamBroken,
    StreamError,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from stream_gateway.batches.retries import MOST_TRIES, is_pushback, pause_s
from stream_gateway.batches.throttle import FULL, PATIENCE_S, Load, Rest, Throttle, look

EIGHT = Throttle(most=64, limit=8.0)


@pytest.mark.parametrize(
    ("load", "limit", "allowed"),
    [
        (Load(running=8), 9, 9),  # all that is allowed runs, nothing presses
        (Load(running=7), 8, 8),  # there is room that nobody uses
        (Load(running=8, busy=FULL), 4, 4),
        (Load(running=8, busy=FULL - 0.01), 9, 9),
        (Load(running=8, refusals=1), 4, 4),
        (Load(running=8, waited_s=PATIENCE_S), 9, 9),  # no longer than is usual
        (Load(running=8, waited_s=PATIENCE_S + 0.01), 4, 0),
        (Load(running=8, pressed_elsewhere=True), 4, 0),
        (Load(running=8, waited_s=9, busy=1.0, refusals=3), 4, 0),
    ],
)
def test_one_look(load: Load, limit: float, allowed: int) -> None:
    """Additive increase, multiplicative decrease; nothing is begun while an interactive request waits."""
    state = look(EIGHT, load, now=100.0)
    assert (state.limit, state.allowed) == (limit, allowed)


def test_sequences() -> None:
    """It halves once when a wait begins, not at each look; at most once a second; never below one, never over most."""
    waits, calm, full = Load(waited_s=2.0, running=8), Load(running=64), Load(busy=1.0, running=8)
    state = EIGHT
    for now in (100.0, 100.25, 100.5):
        state = look(state, waits, now)
    assert (state.limit, state.allowed) == (4.0, 0)
    state = look(state, calm, 100.75)
    assert state.allowed == 5
    state = look(EIGHT, full, 100.0)
    state = look(state, full, 100.9)
    assert state.limit == 4.0
    state = look(state, full, 101.0)
    assert state.limit == 2.0
    for now in range(110, 120):
        state = look(state, full, float(now))
    assert state.allowed == 1
    for now in range(200, 400):
        state = look(state, calm, float(now))
    assert state.allowed == 64
    assert look(replace(state, held=True), Load(), 500.0).allowed == 64


def _rejected(status: int) -> UpstreamRejected:
    return UpstreamRejected("no", status=status, body=b"{}", content_type="application/json")


@pytest.mark.parametrize(
    ("error", "first", "last", "pushback"),
    [
        (UpstreamUnavailable("away"), 1.0, 1.0, True),
        (LimitExceeded("later"), 1.0, 1.0, True),
        (_rejected(429), 1.0, 1.0, True),
        (StreamBroken("lost"), 0.5, None, False),
        (UpstreamTimeout("slow"), 0.5, None, False),
        (_rejected(408), 0.5, None, False),
        (_rejected(400), None, None, False),
        (InvalidRequest("wrong"), None, None, False),
        (NotAllowed("not you"), None, None, False),
    ],
)
def test_retries(error: StreamError, first: float | None, last: float | None, pushback: bool) -> None:
    """No room: again until the batch expires; lost: again, but not for ever; wrong: that is the answer."""
    assert pause_s(error, 1) == first
    assert pause_s(error, MOST_TRIES) == last
    assert is_pushback(error) is pushback
    if first is not None:
        assert pause_s(error, 2) == 1.0


def test_a_replica_that_has_no_room_rests_longer_each_time() -> None:
    """Others may reach workers that it can't: it leaves the lines to them. One line with room ends that."""
    rest = Rest()
    begun = []
    now = 100.0
    for _ in range(8):
        for _ in range(64):  # all that ran at once count as one
            rest = rest.after(now, room=False)
        begun.append(rest.until - now)
        now = rest.until
    assert begun == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert rest.after(now, room=True) == Rest()
