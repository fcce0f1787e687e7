"""The scorer: features and grams in, probability per tier, level, confidence and reasons out. Pure.

    logit[head] = ease + slope * raw[head] - share[head] * assumed     raw: `learned`; ease, slope: from unseen rows
    P(good answer | tier) = sigmoid(logit)                             other tiers: `curves`; own: `calibration`

`assumed` is what was set by hand for requests that the outcomes hold none of: small talk, proofs, tools.

| level  | is the smallest tier that answers well, most probably | weighed                                        |
|--------|--------------------------------------------------------|-----------------------------------------------|
| LOW    | local                                                  | P(local)                                      |
| MEDIUM | hpc                                                    | medium * (P(hpc) - P(local) + rescue)         |
| HIGH   | cloud, or none                                         | high * (1 - P(hpc) - rescue)                  |

The level describes the question, so it does not depend on the tiers asked for. The confidence is the level's own
probability among the three.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import log
from typing import Final

from stream_judge.calibration import NONE, Calibration
from stream_judge.curves import HIGHEST, LOWEST, STANDARD_POSITIONS, logit_at, never_falling, positions, probability
from stream_judge.features import FEATURES, Kind
from stream_judge.learned import HEADS, WORDS, Raw, evaluate
from stream_judge.weights import Levels, Weights

MOST_REASONS = 5
LEAST_EFFECT = 0.05
ASSUMED_SHARE: Final = (1.0, 0.9, 0.8, 1.0)
"""How much of the assumed difficulty each head feels: stronger models feel less."""
_HARD_WORDS, _EASY_WORDS = "words of questions that small models got wrong", "words of questions that small models got"
_OF_TEXT: Final = frozenset({"proof", "derivation", "reasoning", "several_parts", "design", "everyday_task", "brief"})
_BY_NAME: Final = {feature.name: feature for feature in FEATURES}


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
    suffices: float
    """Probability that no stronger tier would do better than the standard local one."""
    logits: tuple[float, ...]
    """Per tier asked for, before the institution's calibration."""


def score(
    values: Mapping[str, float],
    grams: Mapping[int, int],
    tiers: Sequence[str],
    weights: Weights,
    *,
    known: Mapping[str, float] = STANDARD_POSITIONS,
    calibration: Calibration = NONE,
) -> Score:
    """Score a question.

    Args:
        values: each name of `FEATURES` with its value.
        grams: its words and pairs.
        tiers: names, cheapest first, all different, at least one.
        weights: fitted and assumed.
        known: positions of tier names on the line of curves.
        calibration: what the institution's own outcomes say about its tiers.
    """
    raw = evaluate(weights.learned, values, grams)
    # Questions with options are what the outcomes are made of: there the measured words speak, priors are silent.
    silent = _OF_TEXT if values["options"] > 0 else frozenset()
    assumed = {
        name: weight * values[name] for name, weight in weights.assumed.items() if values[name] and name not in silent
    }
    extra = sum(assumed.values())
    logits = [
        curve.ease + curve.slope * number - share * extra
        for curve, number, share in zip(weights.curves, raw.heads, ASSUMED_SHARE, strict=True)
    ]
    level, confidence = judge_level(probability(logits[0]), probability(logits[1]), weights.levels)
    placed = tuple(logit_at(logits, position) for position in positions(tiers, known))
    own = [calibration.logit(tier, logit) for tier, logit in zip(tiers, placed, strict=True)]
    return Score(
        probabilities=tuple(never_falling([probability(logit) for logit in own])),
        level=level,
        confidence=confidence,
        reasons=_reasons(raw, assumed, weights),
        suffices=probability(logits[HEADS.index("suffices")]),
        logits=placed,
    )


def rescored(
    before: Score,
    standard: tuple[float, float, float],
    tiers: Sequence[str],
    weights: Weights,
    *,
    known: Mapping[str, float] = STANDARD_POSITIONS,
    calibration: Calibration = NONE,
) -> Score:
    """Put another judge's chances in the place of the learned ones; level and confidence follow from them.

    Args:
        before: the learned score, whose reasons stay.
        standard: chances of local, hpc and cloud.
        tiers: as `score` had them.
        weights: for the levels.
        known: positions of tier names on the line of curves.
        calibration: of the institution.
    """
    logits = [log(p / (1 - p)) for p in (min(HIGHEST, max(LOWEST, chance)) for chance in standard)]
    level, confidence = judge_level(standard[0], standard[1], weights.levels)
    placed = tuple(logit_at(logits, position) for position in positions(tiers, known))
    own = [calibration.logit(tier, logit) for tier, logit in zip(tiers, placed, strict=True)]
    chances = tuple(never_falling([probability(logit) for logit in own]))
    return replace(before, probabilities=chances, level=level, confidence=confidence, logits=placed)


def judge_level(local: float, hpc: float, levels: Levels) -> tuple[Level, float]:
    """Choose the level.

    Args:
        local: probability that the standard local tier answers well.
        hpc: the same of the standard hpc tier.
        levels: how they are weighed.

    Returns:
        The level, and its probability among the three.
    """
    reached = min(1.0, max(local, hpc) + levels.rescue)
    plain = {Level.LOW: local, Level.MEDIUM: reached - local, Level.HIGH: 1 - reached}
    weight = {Level.LOW: 1.0, Level.MEDIUM: levels.medium, Level.HIGH: levels.high}
    level = max(plain, key=lambda one: plain[one] * weight[one])
    return level, plain[level]


def _reasons(raw: Raw, assumed: Mapping[str, float], weights: Weights) -> tuple[Reason, ...]:
    slope = weights.curves[0].slope
    least = LEAST_EFFECT / slope
    found = [(name, -slope * part) for name, part in raw.effects.items() if not -least < part < least]
    found += [item for item in assumed.items() if abs(item[1]) >= LEAST_EFFECT]
    found.sort(key=lambda item: -abs(item[1]))
    return tuple(Reason(name, value, _words(name, value, raw)) for name, value in found[:MOST_REASONS])


def _words(name: str, value: float, raw: Raw) -> str:
    if name == WORDS:
        return _HARD_WORDS if value > 0 else _EASY_WORDS
    feature = _BY_NAME[name]
    if feature.kind is Kind.ASSUMED or name in raw.above:
        return feature.present
    return feature.small or f"not: {feature.present}"
