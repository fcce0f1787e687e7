"""How far the judge's scores have moved: the last few hundred against the long run. Pure.

The measure is the population stability index over tenths, sum((now - usual) * ln(now / usual)), as credit scoring has
it: below 0.1 nothing happened, above 0.25 other questions come, or another judge answers. Both sides forget: an older
score counts half as much after `_RECENT`, and after `_USUAL`, further ones.
"""

import math
from typing import Final

_TENTHS: Final = 10
_RECENT: Final = 250
_USUAL: Final = 10_000
_LEAST: Final = 1_000
"""Scores before which nothing is said: until then recent and usual ones are nearly the same."""
_NEVER: Final = 0.5
"""Scores that each tenth counts as having had, so that an empty one is no infinite change."""
_KEEP_RECENT: Final = 0.5 ** (1 / _RECENT)
_KEEP_USUAL: Final = 0.5 ** (1 / _USUAL)


class Drift:
    """The scores of one tier."""

    def __init__(self) -> None:
        self._recent = [0.0] * _TENTHS
        self._usual = [0.0] * _TENTHS
        self._seen = 0

    def note(self, probability: float) -> None:
        """Take one score.

        Args:
            probability: 0..1.
        """
        place = min(_TENTHS - 1, int(probability * _TENTHS))
        self._seen += 1
        self._recent = [weight * _KEEP_RECENT for weight in self._recent]
        self._usual = [weight * _KEEP_USUAL for weight in self._usual]
        self._recent[place] += 1
        self._usual[place] += 1

    @property
    def index(self) -> float:
        """The index; 0 while too little is known."""
        if self._seen < _LEAST:
            return 0.0
        recent, usual = _shares(self._recent), _shares(self._usual)
        return sum((now - then) * math.log(now / then) for now, then in zip(recent, usual, strict=True))


def _shares(weights: list[float]) -> list[float]:
    total = sum(weights) + _NEVER * _TENTHS
    return [(weight + _NEVER) / total for weight in weights]
