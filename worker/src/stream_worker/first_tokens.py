"""How long the engine takes to its first token: the median of its last answers. Pure."""

import statistics
from collections import deque
from typing import Final

_KEPT: Final = 32
"""Answers; old ones say little about the load of now."""


class FirstTokens:
    """The engine's own times, from the request to the first event of its stream."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        """Note one answer."""
        self._last.append(seconds)

    @property
    def median_ms(self) -> float | None:
        """Median of the last ones; None before the first."""
        return round(statistics.median(self._last) * 1000, 2) if self._last else None
