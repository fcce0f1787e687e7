"""The window of one answer: each row of its table, with the clock as an argument."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.wire.window import Budget, Window

KIB = 1024
FIRST, MOST = 256 * KIB, 8192 * KIB
R = 0.08
"""Seconds of one round trip."""


def new_window(*, budget: int = 64 * MOST, most: int = MOST, round_trip_s: float = R) -> Window:
    window = Window(FIRST, most, Budget(budget))
    window.path(round_trip_s, now=0.0)
    return window


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([(R, 128 * KIB)], 512 * KIB),
        ([(R, 128 * KIB - 1)], FIRST),
        ([(R / 4, 64 * KIB), (R / 2, 64 * KIB)], FIRST),
        ([(R / 4, 64 * KIB), (R / 2, 64 * KIB), (R, 1)], 512 * KIB),
        ([(2 * R, 200 * KIB)], FIRST),
        ([(2 * R, 256 * KIB)], 512 * KIB),
        ([(R, 128 * KIB), (2 * R, 255 * KIB)], 512 * KIB),
        ([(R, 128 * KIB), (2 * R, 256 * KIB)], 1024 * KIB),
        ([(R, 128 * KIB), (60.0, 256 * KIB)], 512 * KIB),
        ([(n * R, MOST) for n in range(1, 20)], MOST),
    ],
    ids=[
        "half a window in a round trip: doubles",
        "less than half: stays",
        "half, but the round trip is not over",
        "in several pieces",
        "in two round trips: less than half in each",
        "in two round trips: half in each",
        "half of the old window is not half of the new one",
        "half of the new one: doubles again",
        "quick at first, then slow: keeps what it has",
        "up to the most",
    ],
)
def test_what_a_reader_takes_decides(steps, size):
    """Each row of the table: (when, bytes taken) in order, and the window after it."""
    window = new_window()
    for now, taken in steps:
        window.took(taken, now)
    assert window.size == size


def test_growth_is_told_once():
    """The call that lets it grow says so, since a CREDIT is due; the others do not."""
    window = new_window()
    assert [window.took(128 * KIB, now) for now in (R, R + 0.001, R + 0.002)] == [True, False, False]


def test_without_a_path_it_stays():
    """Before the first sign of an answer the path is not known: no growth, however much is taken."""
    window = Window(FIRST, MOST, Budget(MOST))
    assert not any(window.took(MOST, now) for now in range(1, 9))


def test_the_same_rate_needs_a_large_window_on_a_long_path_only():
    """24 MB/s: at 1 ms the first window is enough; across 80 ms it grows to twice the product, then stays."""
    sizes = {}
    for round_trip_s in (0.001, R):
        window = new_window(round_trip_s=round_trip_s)
        for step in range(1, 5000):
            window.took(24_000, step / 1000)
        sizes[round_trip_s] = window.size
    assert sizes == {0.001: FIRST, R: 4096 * KIB}


def test_budget_is_shared_and_given_back():
    """Who comes when the budget is spent keeps the first window, until somebody else's answer has ended."""
    budget = Budget(FIRST)
    first, second = Window(FIRST, MOST, budget), Window(FIRST, MOST, budget)
    for window in (first, second):
        window.path(R, now=0.0)
        window.took(FIRST, R)
    assert (first.size, second.size, budget.left) == (2 * FIRST, FIRST, 0)
    first.close()
    first.close()
    second.took(FIRST, 2 * R)
    first.took(FIRST, 2 * R)
    assert (second.size, budget.left) == (2 * FIRST, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["took", "close"]), st.integers(0, MOST), st.floats(0, 1))),
    st.integers(0, 4 * MOST),
)
def test_whatever_is_read_the_sum_is_bounded(steps, budget_size):
    """All windows together never exceed what they began with and the budget; at the end all of it is back."""
    budget, now = Budget(budget_size), 0.0
    windows = [Window(FIRST, MOST, budget) for _ in range(4)]
    for window in windows:
        window.path(R, now)
    open_ = dict(enumerate(windows))
    for index, what, size, wait_s in steps:
        now += wait_s
        if what == "took":
            windows[index].took(size, now)
        else:
            windows[index].close()
            open_.pop(index, None)
        assert sum(window.size for window in open_.values()) <= len(open_) * FIRST + budget_size
        assert all(window.size <= MOST for window in windows)
    for window in windows:
        window.close()
    assert budget.left == budget_size
