"""Who waits: order, limit, places; the table of the waiting room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import WorkerNotReady
from stream_gateway.waiting_room import WaitingRoom


def test_the_first_to_come_is_called_first() -> None:
    """A place is given once; who was refused is called again before all who came later; who leaves is not called."""
    room: WaitingRoom[str] = WaitingRoom(10)
    first, second, third = (room.enter("m") for _ in range(3))
    assert room.call("m", 1) == [first]
    assert room.call("m", 1) == [], "the place is the first one's already"
    room.try_(first)
    room.back(first)
    assert room.call("m", 2) == [first, second]
    room.leave(first)
    assert room.call("m", 2) == [third]
    assert room.call("other", 2) == []


def test_the_limit_has_both_numbers() -> None:
    """One more than may wait is refused; a place that is left is free at once, whatever it waited for."""
    room: WaitingRoom[str] = WaitingRoom(2)
    one = room.enter("m")
    room.enter("n")
    with pytest.raises(WorkerNotReady, match="2 requests wait for a worker already, at most 2 may"):
        room.enter("m")
    room.leave(one)
    assert len(room) == 1
    room.enter("m")


def test_who_asks_a_worker_does_not_wait() -> None:
    """The count that hpc_dispatch is told holds those for whom no worker is there."""
    room: WaitingRoom[str] = WaitingRoom(9)
    first, _ = room.enter("m"), room.enter("m")
    other = room.enter("n")
    assert room.waiting() == {"m": 2, "n": 1}
    for number, wish in ((first, "m"), (other, "n")):
        room.call(wish, 1)
        room.try_(number)
    assert room.waiting() == {"m": 1}
    room.back(other)
    assert room.waiting() == {"m": 1, "n": 1}


@given(
    st.lists(st.tuples(st.sampled_from(["enter", "call", "leave", "back"]), st.sampled_from("mn"), st.integers(0, 9)))
)
def test_any_order_of_events(events: list[tuple[str, str, int]]) -> None:
    """Never more than the limit, nobody called twice, nobody before one who came earlier for the same."""
    room: WaitingRoom[str] = WaitingRoom(5)
    waiting: dict[str, list[int]] = {"m": [], "n": []}
    called: list[tuple[int, str]] = []
    for kind, wish, number in events:
        match kind:
            case "enter" if len(room) < 5:
                waiting[wish].append(room.enter(wish))
            case "enter":
                with pytest.raises(WorkerNotReady):
                    room.enter(wish)
            case "call":
                free = max(0, number - sum(of == wish for _, of in called))
                assert room.call(wish, number) == waiting[wish][:free]
                called += [(who, wish) for who in waiting[wish][:free]]
                del waiting[wish][:free]
            case "leave" if waiting[wish]:
                room.leave(waiting[wish].pop(number % len(waiting[wish])))
            case "back" if called:
                who, of = called.pop(number % len(called))
                room.try_(who)
                room.back(who)
                waiting[of] = sorted([*waiting[of], who])
    assert len(room) == len(called) + sum(map(len, waiting.values()))
