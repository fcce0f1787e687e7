"""How many bytes of one answer may be on their way or unread: a window that grows with the path. Pure.

Theory: across a round trip R a window of W bytes carries at most W / R, so a fixed one is too small for a long path
or too large for the memory behind a short one. As in TCP's own tuning of receive buffers (Linux,
`tcp_rcv_space_adjust`), the reader shows which it is:

    the reader took, in one round trip | means                                    | the window
    -----------------------------------+------------------------------------------+------------------------------
    less than half a window            | the engine or the reader is the slow one | stays
    half a window or more              | credit is, or soon will be, what limits  | doubles, up to `Limits.most`,
                                       |                                          | if the budget has that much

So a reader that is slow keeps the window it began with, and on loopback nearly every answer does. A window does not
shrink, since credit can't be taken back: a reader that was quick and stands still holds what it grew to. That is why
the growth of all windows is paid from one `Budget`, and given back at each answer's end.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How far windows may grow, in bytes."""

    most: int = 8 * 1024 * 1024
    """Of one answer."""
    budget: int = 32 * 1024 * 1024
    """Of all answers together, beyond the windows that they began with."""


class Budget:
    """Bytes by which all windows may have grown at once.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take so many bytes; false, and nothing is taken, when fewer are left."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self.left += size


class Window:
    """The window of one answer, at its reader's end.

    Args:
        size: bytes at first.
        most: bytes that it may grow to.
        budget: pays for what it grows.
    """

    def __init__(self, size: int, most: int, budget: Budget) -> None:
        self._most = most
        self._budget = budget
        self._grown = 0
        self._round_trip_s = 0.0
        self._round_began = 0.0
        self._taken = 0
        self._closed = False
        self.size = size

    def path(self, round_trip_s: float, now: float) -> None:
        """Learn how long the path is; without that a window does not grow.

        Args:
            round_trip_s: seconds from a question to the first sign of its answer.
            now: seconds, of any clock that only goes forward.
        """
        self._round_trip_s = round_trip_s
        self._round_began = now
        self._taken = 0

    def took(self, size: int, now: float) -> bool:
        """Note that the reader took bytes.

        Returns:
            Whether the window has grown: a CREDIT is due.
        """
        self._taken += size
        elapsed_s = now - self._round_began
        if not self._round_trip_s or elapsed_s < self._round_trip_s:
            return False
        in_a_round_trip = self._taken * self._round_trip_s / elapsed_s
        self._round_began, self._taken = now, 0
        return 2 * in_a_round_trip >= self.size and self._grow()

    def close(self) -> None:
        """Nothing is read any more: what it grew by is there for others."""
        self._closed = True
        self._budget.give_back(self._grown)
        self._grown = 0

    def _grow(self) -> bool:
        more = min(self.size, self._most - self.size)
        if self._closed or more <= 0 or not self._budget.take(more):
            return False
        self._grown += more
        self.size += more
        return True
