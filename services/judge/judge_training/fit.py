"""From rows to a model: words, pairs and stepped features in one ridge regression per head.

Each question stands in the training set twice, as it was asked and stripped of options and answer format, so that no
weight can lean on the formatting alone. Heads are fitted to mixed targets: a single run's 0 or 1 is noisy, so the
mean of the small models counts half where it says something about the head.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Final

import numpy as np

from judge_training.ridge import solve, stack
from judge_training.rows import Row, View
from stream_judge.features import FEATURES, Kind
from stream_judge.learned import HEADS, Gram, Learned, Step, damped

FEWEST_ROWS: Final = 2
"""Grams in fewer questions are unknown words."""
QUANTILES: Final = 8
STEP_SCALE: Final = 0.3
"""How loud features speak beside words, before the prior; 0.3 was best of 0.3, 1, 2 on dev folds."""
RIDGE: Final = 3.0
STEPPED: Final = tuple(feature.name for feature in FEATURES if feature.kind is not Kind.ASSUMED)


def targets(rows: Sequence[Row]) -> Mapping[str, list[float]]:
    """What each head is fitted to."""
    return {
        "local": [(row.panel + row.outcomes[0]) / 2 for row in rows],
        "hpc": [row.outcomes[1] for row in rows],
        "cloud": [row.outcomes[2] for row in rows],
        "suffices": [(row.panel + row.suffices) / 2 for row in rows],
    }


@dataclass(frozen=True)
class Space:
    """Columns of the regression."""

    column: Mapping[int, int]
    """Gram -> column."""
    rarity: Mapping[int, float]
    unknown: float
    thresholds: Mapping[str, tuple[float, ...]]
    first: Mapping[str, int]
    """Feature -> its first column."""
    width: int
    scale: float

    def entries(self, view: View) -> list[tuple[int, float]]:
        """One row of the matrix."""
        found = [
            (self.column.get(gram, -1), damped(count) * self.rarity.get(gram, self.unknown))
            for gram, count in view.grams.items()
        ]
        norm = sqrt(sum(value * value for _, value in found)) or 1.0
        row = [(column, value / norm) for column, value in found if column >= 0]
        for name, at in self.first.items():
            above = bisect_left(self.thresholds[name], view.values[name])
            row += [(at + k, self.scale if k < above else -self.scale) for k in range(len(self.thresholds[name]))]
        return row


def space_of(rows: Sequence[Row]) -> Space:
    """Choose grams and thresholds."""
    seen: Counter[int] = Counter()
    for row in rows:
        seen.update(row.plain.grams.keys() | row.stripped.grams.keys())
    kept = sorted(gram for gram, count in seen.items() if count >= FEWEST_ROWS)
    size = 1 + len(rows)
    thresholds, first, width = {}, {}, len(kept)
    for name in STEPPED:
        values = [view.values[name] for row in rows for view in (row.plain, row.stripped)]
        cuts = np.unique(np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1])).tolist()
        thresholds[name] = tuple(round(cut, 4) for cut in cuts)
        first[name] = width
        width += len(cuts)
    return Space(
        column={gram: index for index, gram in enumerate(kept)},
        rarity={gram: 1 + log(size / (1 + seen[gram])) for gram in kept},
        unknown=1 + log(size / 2),
        thresholds=thresholds,
        first=first,
        width=width,
        scale=STEP_SCALE / sqrt(width - len(kept)),
    )


def train(rows: Sequence[Row], heads: Sequence[str] = HEADS) -> Learned:
    """Fit the heads; those not asked for stay at zero."""
    space = space_of(rows)
    matrix = stack([space.entries(view) for row in rows for view in (row.plain, row.stripped)], space.width)
    solved = {
        head: solve(matrix, np.repeat(np.array(values), 2), RIDGE)
        for head, values in targets(rows).items()
        if head in heads
    }
    nothing = (np.zeros(space.width), 0.0)
    weights = np.array([solved.get(head, nothing)[0] for head in HEADS])
    grams = {
        gram: Gram(space.rarity[gram], tuple(map(float, weights[:, column]))) for gram, column in space.column.items()
    }
    steps = {}
    for name, at in space.first.items():
        cuts = space.thresholds[name]
        block = weights[:, at : at + len(cuts)] * space.scale
        levels = [2 * block[:, :k].sum(axis=1) - block.sum(axis=1) for k in range(len(cuts) + 1)]
        steps[name] = Step(cuts, tuple(tuple(map(float, level)) for level in levels))
    base = tuple(float(solved.get(head, nothing)[1]) for head in HEADS)
    return centred(Learned(base=base, steps=steps, grams=grams, unknown=space.unknown), rows)


def centred(model: Learned, rows: Sequence[Row]) -> Learned:
    """Move each feature's mean effect into the base, so that an effect tells the distance from the average question."""
    base = np.array(model.base)
    steps = {}
    for name, step in model.steps.items():
        taken = [bisect_left(step.cuts, row.plain.values[name]) for row in rows]
        levels = np.array(step.levels)
        mean = levels[taken].mean(axis=0)
        base += mean
        steps[name] = Step(step.cuts, tuple(tuple(map(float, level - mean)) for level in levels))
    return Learned(base=tuple(map(float, base)), steps=steps, grams=model.grams, unknown=model.unknown)
