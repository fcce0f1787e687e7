"""Who waits for a worker of which model, in the order of coming. Pure bookkeeping; `waiting` drives it.

    state   | meaning                              | leaves it by
    --------+--------------------------------------+---------------------------------------------
    WAITING | no worker has a place for it         | `call` -> CALLED
    CALLED  | a place is free, it does not know    | `try_` -> TRYING
    TRYING  | it asks a worker                     | `back` -> WAITING, at the place it had before

`leave` ends any of them.
"""

from collections.abc import Hashable
from enum import Enum
from itertools import count, islice
from typing import Generic, TypeVar

from stream_core.errors import WorkerNotReady

W = TypeVar("W", bound=Hashable)


class Step(Enum):
    """Where a waiting request is; the table above."""

    WAITING = "waiting"
    CALLED = "called"
    TRYING = "trying"


class WaitingRoom(Generic[W]):
    """All that wait; W says for what.

    Args:
        limit: requests that may wait at once, over all models.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._wishes: dict[int, W] = {}
        self._lines: dict[W, dict[int, Step]] = {}

    def __len__(self) -> int:
        return len(self._wishes)

    def enter(self, wish: W) -> int:
        """Take a request in.

        Returns:
            Its number; `leave` is due with it, whatever happens.

        Raises:
            WorkerNotReady: as many wait as may; the message has both numbers.
        """
        if len(self._wishes) >= self._limit:
            raise WorkerNotReady(
                f"{len(self._wishes):,} requests wait for a worker already, at most {self._limit:,} may"
            )
        number = next(self._numbers)
        self._wishes[number] = wish
        self._lines.setdefault(wish, {})[number] = Step.WAITING
        return number

    def leave(self, number: int) -> None:
        """Let a request go; its place is free at once."""
        wish = self._wishes.pop(number)
        line = self._lines[wish]
        del line[number]
        if not line:
            del self._lines[wish]

    def call(self, wish: W, places: int) -> list[int]:
        """Call as many as there are places, the first to come first.

        Args:
            wish: whose line.
            places: that are free now; those called before count as taking theirs.

        Returns:
            The numbers that are newly called.
        """
        line = self._lines.get(wish, {})
        free = places - sum(step is Step.CALLED for step in line.values())
        called = list(islice((number for number, step in line.items() if step is Step.WAITING), max(0, free)))
        for number in called:
            line[number] = Step.CALLED
        return called

    def try_(self, number: int) -> None:
        """A called one asks a worker now."""
        self._lines[self._wishes[number]][number] = Step.TRYING

    def back(self, number: int) -> None:
        """The worker refused it: it waits on, before all who came later."""
        self._lines[self._wishes[number]][number] = Step.WAITING

    def waiting(self) -> dict[W, int]:
        """Count those who wait, by what they wait for; those that ask a worker now do not count."""
        counts = {wish: sum(step is not Step.TRYING for step in line.values()) for wish, line in self._lines.items()}
        return {wish: number for wish, number in counts.items() if number}
