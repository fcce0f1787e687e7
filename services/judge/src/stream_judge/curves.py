"""From a difficulty to each tier's probability of a good answer. Pure.

Outcomes are known for three tiers: local (position 0), hpc (1) and cloud (2). A tier of another name lies between or
beyond them on the same line, by its place in the caller's order (cheapest first):

| asked for                      | positions          |
|--------------------------------|--------------------|
| local, hpc, cloud              | 0, 1, 2            |
| hpc, cloud                     | 1, 2               |
| local, edge, hpc, cloud        | 0, 0.5, 1, 2       |
| edge, local                    | -0.5, 0            |
| cloud, giant                   | 2, 2.5             |
| a, b, c, d (none known)        | 0, 0.67, 1.33, 2   |
| cloud, local (against the line)| 0, 2: names do not count, only the order does |

Between two curves ease and slope are interpolated, half a step beyond the ends they are extrapolated. A later tier is
never given a lower probability than an earlier one.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import exp

from stream_judge.weights import CURVES, Weights

FIRST, LAST = 0.0, float(len(CURVES) - 1)
BEYOND = 0.5
STANDARD_POSITIONS: Mapping[str, float] = {name: float(index) for index, name in enumerate(CURVES)}
LOWEST, HIGHEST = 0.01, 0.99
"""Nothing is certain: probabilities stay between these."""
_LEAST_SLOPE = 0.05
_LOGIT_LIMIT = 30.0


def positions(tiers: Sequence[str], known: Mapping[str, float]) -> list[float]:
    """Place tiers on the line of curves.

    Args:
        tiers: names, cheapest first, all different.
        known: positions of the names that have one.

    Returns:
        One position per tier; they never fall.
    """
    anchors = [(index, known[name]) for index, name in enumerate(tiers) if name in known]
    if any(left[1] > right[1] for left, right in pairwise(anchors)):
        anchors = []
    if not anchors:
        step = (LAST - FIRST) / (len(tiers) - 1) if len(tiers) > 1 else 0.0
        return [FIRST + index * step for index in range(len(tiers))]
    (first, start), (last, end) = anchors[0], anchors[-1]
    if first > 0:
        anchors.insert(0, (0, FIRST if start > FIRST else start - BEYOND))
    if last < len(tiers) - 1:
        anchors.append((len(tiers) - 1, LAST if end < LAST else end + BEYOND))
    placed = [anchors[0][1]]
    for (left, low), (right, high) in pairwise(anchors):
        placed += [low + (high - low) * (index - left) / (right - left) for index in range(left + 1, right + 1)]
    return placed


def curve(weights: Weights, position: float) -> tuple[float, float]:
    """Ease and slope at a position of the line."""
    left = min(max(int(position), 0), len(CURVES) - 2)
    share = position - left
    ease = weights.ease[left] + share * (weights.ease[left + 1] - weights.ease[left])
    slope = weights.slope[left] + share * (weights.slope[left + 1] - weights.slope[left])
    return ease, max(_LEAST_SLOPE, slope)


def probability(weights: Weights, position: float, difficulty: float) -> float:
    """Probability of a good answer at one position, in [0.01, 0.99]."""
    ease, slope = curve(weights, position)
    logit = min(_LOGIT_LIMIT, max(-_LOGIT_LIMIT, ease - slope * difficulty))
    return min(HIGHEST, max(LOWEST, 1.0 / (1.0 + exp(-logit))))


def probabilities(weights: Weights, places: Sequence[float], difficulty: float) -> list[float]:
    """Probabilities at rising positions; they never fall, where two fitted curves cross the weaker one's holds."""
    return list(accumulate((probability(weights, place, difficulty) for place in places), max))
