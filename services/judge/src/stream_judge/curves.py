"""From the learned numbers to each tier's probability of a good answer. Pure.

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

Between two tiers the logits are interpolated, half a step beyond the ends they are extrapolated. A later tier is never
given a lower probability than an earlier one; where curves cross, the tiers between give way.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import exp
from typing import Final

STANDARD: Final = ("local", "hpc", "cloud")
"""The tiers that have outcomes, weakest first; every other tier's curve lies on the line through them."""
FIRST, LAST = 0.0, float(len(STANDARD) - 1)
BEYOND = 0.5
STANDARD_POSITIONS: Mapping[str, float] = {name: float(index) for index, name in enumerate(STANDARD)}
LOWEST, HIGHEST = 0.01, 0.99
"""Nothing is certain: probabilities stay between these."""
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


def logit_at(logits: Sequence[float], position: float) -> float:
    """The logit at a position of the line, from those of the standard tiers."""
    left = min(max(int(position), 0), len(STANDARD) - 2)
    return logits[left] + (position - left) * (logits[left + 1] - logits[left])


def probability(logit: float) -> float:
    """The logistic function, kept away from certainty."""
    return min(HIGHEST, max(LOWEST, 1.0 / (1.0 + exp(-min(_LOGIT_LIMIT, max(-_LOGIT_LIMIT, logit))))))


def never_falling(numbers: Sequence[float]) -> list[float]:
    """Hold the first and, where it is not below that, the last; lift or lower those between so that none falls.

    What a request gains by going to the strongest tier is what policies ask for: a tier between may not hide it.
    """
    last = max(numbers[0], numbers[-1])
    return list(accumulate((min(number, last) for number in numbers), max))
