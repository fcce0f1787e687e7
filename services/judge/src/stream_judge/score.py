"""The scorer: features and weights in, probability per tier, level, confidence and reasons out. Pure.

difficulty = sum of the features' effects (`effect`), 0 for the average exam question, in logits;
P(good answer | tier) = sigmoid(ease[tier] - slope[tier] * difficulty) (`curves`).

| level  | when                                                                        |
|--------|-----------------------------------------------------------------------------|
| LOW    | the standard local tier reaches `good_enough`                               |
| MEDIUM | it does not, the standard hpc tier does                                     |
| HIGH   | neither does                                                                |

The level describes the question, so it does not depend on the tiers asked for. The confidence is the probability that
the level is the right one, if the true difficulty lies around the estimate with the standard deviation `spread` that
the fit has measured on questions it had not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import erf, inf, log, sqrt

from stream_judge.curves import STANDARD_POSITIONS, positions, probabilities, probability
from stream_judge.features import FEATURES, Feature, Kind
from stream_judge.weights import Weight, Weights

SCALE_LIMIT = 2.5
"""Standard deviations: beyond what training has seen, a measure speaks no louder than at its edge."""
MOST_REASONS = 5
LEAST_EFFECT = 0.05


class Level(Enum):
    """How demanding the question is."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the score is what it is."""

    feature: str
    effect: float
    """In logits of difficulty; above 0 it speaks for a stronger model."""
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """What the judge says about a question."""

    probabilities: tuple[float, ...]
    """Per tier asked for, in that order."""
    level: Level
    confidence: float
    reasons: tuple[Reason, ...]
    """The strongest first."""
    difficulty: float


def effect(weight: Weight, value: float) -> float:
    """What one feature adds to the difficulty, in logits."""
    scaled = (value - weight.centre) / weight.scale
    return weight.weight * min(max(scaled, -SCALE_LIMIT), SCALE_LIMIT)


def score(
    values: Mapping[str, float],
    tiers: Sequence[str],
    weights: Weights,
    *,
    good_enough: float,
    known: Mapping[str, float] = STANDARD_POSITIONS,
) -> Score:
    """Score a question.

    Args:
        values: each name of `FEATURES` with its value.
        tiers: names, cheapest first, all different, at least one.
        weights: fitted and assumed.
        good_enough: the probability from which a tier's answer counts as good, in (0, 1).
        known: positions of tier names on the line of curves.
    """
    effects = {feature: effect(weights.features[feature.name], values[feature.name]) for feature in FEATURES}
    difficulty = sum(effects.values())
    level = _level(difficulty, weights, good_enough)
    return Score(
        probabilities=tuple(probabilities(weights, positions(tiers, known), difficulty)),
        level=level,
        confidence=_confidence(level, difficulty, weights, good_enough),
        reasons=_reasons(values, effects, weights),
        difficulty=difficulty,
    )


def _level(difficulty: float, weights: Weights, good_enough: float) -> Level:
    if probability(weights, STANDARD_POSITIONS["local"], difficulty) >= good_enough:
        return Level.LOW
    if probability(weights, STANDARD_POSITIONS["hpc"], difficulty) >= good_enough:
        return Level.MEDIUM
    return Level.HIGH


def _confidence(level: Level, difficulty: float, weights: Weights, good_enough: float) -> float:
    """Probability mass of the level's interval of difficulty around the estimate."""
    threshold = log(good_enough / (1 - good_enough))
    easy, hard = ((ease - threshold) / slope for ease, slope in zip(weights.ease[:2], weights.slope[:2], strict=True))
    below, above = {Level.LOW: (-inf, easy), Level.MEDIUM: (easy, hard), Level.HIGH: (max(easy, hard), inf)}[level]
    mass = _normal((above - difficulty) / weights.spread) - _normal((below - difficulty) / weights.spread)
    return min(1.0, max(0.0, mass))


def _normal(z: float) -> float:
    return (1 + erf(z / sqrt(2))) / 2


def _reasons(values: Mapping[str, float], effects: Mapping[Feature, float], weights: Weights) -> tuple[Reason, ...]:
    strongest = sorted(effects.items(), key=lambda item: -abs(item[1]))[:MOST_REASONS]
    return tuple(
        Reason(
            feature.name, value, _words(feature, above=values[feature.name] >= weights.features[feature.name].centre)
        )
        for feature, value in strongest
        if abs(value) >= LEAST_EFFECT
    )


def _words(feature: Feature, *, above: bool) -> str:
    return feature.present if above or feature.kind is not Kind.MEASURE else feature.small
