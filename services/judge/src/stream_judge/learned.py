"""The learned scorer: features and grams in, one number per head out. Pure, a sum and nothing else.

raw[head] = base + sum(step table of each feature at its value) + sum(weight of each gram * its share of the text)
            + what the features mean together (`interplay`)

where a gram's share is damped(count) * rarity, divided by the length of the vector of all grams, unknown ones
included, so that words which training has never seen make the known ones speak more softly. Being a sum, every part
can be told apart: that is where the reasons come from.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from typing import Final

from stream_judge.interplay import Interplay

HEADS: Final = ("local", "hpc", "cloud", "suffices")
"""Three tiers' chance of a good answer, and the chance that no stronger tier would do better than local."""


@dataclass(frozen=True, slots=True)
class Step:
    """One feature's effect: constant between cuts."""

    cuts: tuple[float, ...]
    """Rising."""
    levels: tuple[tuple[float, ...], ...]
    """One per interval, one number per head."""


@dataclass(frozen=True, slots=True)
class Gram:
    """One word's or pair's part."""

    rarity: float
    weights: tuple[float, ...]
    """One per head."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Everything that was fitted."""

    base: tuple[float, ...]
    steps: Mapping[str, Step]
    grams: Mapping[int, Gram]
    unknown: float
    """Rarity of a gram that is not known."""
    interplay: Interplay


@dataclass(frozen=True, slots=True)
class Raw:
    """What the sum says."""

    heads: tuple[float, ...]
    effects: Mapping[str, float]
    """Each feature's part of the head "local"; the words' part under `WORDS`, that of all
    features together under `TOGETHER`."""
    above: frozenset[str]
    """Features whose value is in the upper half of their intervals."""


WORDS: Final = "words"
TOGETHER: Final = "together"


def damped(count: int) -> float:
    """The tenth time a word says little more than the first."""
    return 1.0 + log(count)


def evaluate(model: Learned, values: Mapping[str, float], grams: Mapping[int, int]) -> Raw:
    """Score one question.

    Args:
        model: as fitted.
        values: every stepped feature's value.
        grams: counts by name.
    """
    levels, above = {}, []
    for name, step in model.steps.items():
        at = bisect_left(step.cuts, values[name])
        levels[name] = step.levels[at]
        if 2 * at > len(step.cuts):
            above.append(name)
    words = _words(model, grams)
    together = model.interplay.parts(values)
    heads = tuple(map(sum, zip(model.base, words, together, *levels.values(), strict=True)))
    effects = {name: level[0] for name, level in levels.items()}
    effects[WORDS], effects[TOGETHER] = words[0], together[0]
    return Raw(heads, effects, frozenset(above))


def _words(model: Learned, grams: Mapping[int, int]) -> tuple[float, ...]:
    known, unknown = model.grams, model.unknown
    square = 0.0
    local = hpc = cloud = suffices = 0.0
    for name, count in grams.items():
        gram = known.get(name)
        tf = 1.0 if count == 1 else damped(count)
        if gram is None:
            square += (tf * unknown) ** 2
            continue
        value = tf * gram.rarity
        square += value * value
        w = gram.weights
        local += value * w[0]
        hpc += value * w[1]
        cloud += value * w[2]
        suffices += value * w[3]
    norm = sqrt(square) or 1.0
    return local / norm, hpc / norm, cloud / norm, suffices / norm
