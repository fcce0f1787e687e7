"""How many lines of batches a replica may run at once. Pure: what is seen comes in, a number comes out.

Additive increase, multiplicative decrease: while all that is allowed runs and nothing presses, one more per look; half
as many when the engines are nearly full or refuse. While an interactive request waits for its first byte longer than
is usual, here or at another replica, no line is begun at all. What runs is never stopped.
"""

from dataclasses import dataclass, replace
from typing import Final

FULL: Final = 0.85
"""Share of the workers' places in use above which batches give way: the rest is for interactive requests."""
PATIENCE_S: Final = 0.5
"""An interactive request that waits longer for its first byte stops batches."""
FIRST_LIMIT: Final = 4.0
_AGAIN_S: Final = 1.0
"""Two halvings are at least so far apart, so that the first one can take effect."""
_FIRST_REST_S: Final = 0.5
_LONGEST_REST_S: Final = 15.0
_MOST_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Load:
    """What is seen at one look."""

    waited_s: float = 0.0
    """How long the interactive request that waits longest has waited for its first byte."""
    pressed_elsewhere: bool = False
    """Whether another replica has said so lately."""
    busy: float = 0.0
    """Share of the workers' places in use; 0 when there are none or nothing is known of them."""
    refusals: int = 0
    """Lines that found nobody, or were told to come later, since the last look."""
    running: int = 0
    """Lines that ran at once since the last look, at most."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """The state between two looks."""

    most: int
    """Lines at once, whatever happens."""
    limit: float = FIRST_LIMIT
    held: bool = False
    """Interactive requests wait: no line is begun."""
    halved_at: float = float("-inf")

    @property
    def allowed(self) -> int:
        """Lines that may run at once."""
        return 0 if self.held else min(int(self.limit), self.most)


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a replica begins nothing after nobody had room for its lines: others may be better off than it is."""

    refused: int = 0
    """Times in a row, without a line that found room."""
    until: float = float("-inf")

    def after(self, now: float, *, room: bool) -> "Rest":
        """Take note of a line: with room all is well; refusals of lines begun before the rest count as one.

        Args:
            now: seconds of a monotonic clock.
            room: whether somebody took it.
        """
        if room:
            return Rest()
        if now < self.until:
            return self
        pause_s = min(_FIRST_REST_S * 2.0**self.refused, _LONGEST_REST_S)
        return Rest(min(self.refused + 1, _MOST_DOUBLINGS), now + pause_s)


def pressed(load: Load) -> bool:
    """Whether this replica's interactive requests wait too long."""
    return load.waited_s > PATIENCE_S


def look(state: Throttle, load: Load, now: float) -> Throttle:
    """Take one look.

    Args:
        state: after the last one.
        load: what is seen.
        now: seconds of a monotonic clock.
    """
    held = pressed(load) or load.pressed_elsewhere
    begins_to_hold = held and not state.held
    full = load.busy >= FULL or load.refusals > 0
    if begins_to_hold or (full and now - state.halved_at >= _AGAIN_S):
        return replace(state, limit=max(1.0, state.limit / 2), held=held, halved_at=now)
    if held or full or load.running < int(state.limit):
        return replace(state, held=held)
    return replace(state, limit=min(state.limit + 1.0, float(state.most)), held=held)
