"""From rows to a model: words, pairs, stepped features and their interplay in one ridge regression per head.

Each question stands in the training set twice, as it was asked and stripped of options and answer format, so that no
weight can lean on the formatting alone. A single run's 0 or 1 is noisy: the heads "local" and "suffices" are fitted to
it and to what the other models' answers make expected (`expected`).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from judge_training.expected import mixed
from judge_training.ridge import Design, solve, stack
from judge_training.rows import Row, View
from stream_judge.features import FEATURES, Kind
from stream_judge.interplay import Interplay
from stream_judge.learned import HEADS, Gram, Learned, Step, damped

FEWEST_ROWS: Final = 2
"""Grams in fewer questions are unknown words."""
QUANTILES: Final = 8
STEP_SCALE: Final = 0.3
"""How loud features speak beside words, before the prior; 0.3 was best of 0.3, 1, 2 on dev folds."""
WAVES: Final = 768


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen by cross-validation; `nested` tells what the choosing itself is worth."""

    ridge: float = 5.0
    loudness: float = 0.65
    """Of all waves together, before the prior."""
    outcome: float = 0.25
    """Share of the outcome itself in what is fitted; the rest is what the other models make expected."""


CHOSEN: Final = Choice()
STEPPED: Final = tuple(feature.name for feature in FEATURES if feature.kind is not Kind.ASSUMED)


def targets(rows: Sequence[Row], share: float = CHOSEN.outcome) -> Mapping[str, npt.NDArray[np.float64]]:
    """What each head is fitted to; `share` is the outcome's own."""
    local, hpc, cloud = np.array([row.outcomes for row in rows]).T
    suffices = np.array([row.suffices for row in rows])
    return {
        "local": mixed(rows, local, [0], share),
        "hpc": hpc,
        "cloud": cloud,
        "suffices": mixed(rows, suffices, [0, 1, 2], share),
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


def interplay_of(rows: Sequence[Row]) -> Interplay:
    """Draw the waves, the same each time; their weights are still nothing."""
    table = _table(rows)
    middle, spread = table.mean(axis=0), table.std(axis=0) + 1e-6
    chance = np.random.default_rng(0)
    # The kernel's width: at the mean distance of two questions it is exp(-1).
    directions = chance.standard_normal((len(STEPPED), WAVES)) / sqrt(len(STEPPED))
    phases = chance.uniform(0, 2 * np.pi, WAVES)
    arrays = (array.astype(np.float32) for array in (middle, spread, directions, phases))
    return Interplay(STEPPED, *arrays, np.zeros((WAVES, len(HEADS)), np.float32))


def _table(rows: Sequence[Row]) -> npt.NDArray[np.float32]:
    views = [view for row in rows for view in (row.plain, row.stripped)]
    return np.array([[view.values[name] for name in STEPPED] for view in views], np.float32)


def train(rows: Sequence[Row], heads: Sequence[str] = HEADS, choice: Choice = CHOSEN) -> Learned:
    """Fit the heads; those not asked for stay at zero."""
    space = space_of(rows)
    interplay, scale = interplay_of(rows), choice.loudness * sqrt(2 / WAVES)
    sparse = stack([space.entries(view) for row in rows for view in (row.plain, row.stripped)], space.width)
    matrix = Design(sparse, scale * interplay.waves(_table(rows)).astype(np.float64))
    wanted = {head: values for head, values in targets(rows, choice.outcome).items() if head in heads}
    solved = {head: solve(matrix, np.repeat(values, 2), choice.ridge) for head, values in wanted.items()}
    nothing = (np.zeros(matrix.shape[1]), 0.0)
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
    together = replace(interplay, weights=(scale * weights[:, space.width :].T).astype(np.float32))
    return centred(Learned(base, steps, grams, space.unknown, together), rows)


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
    return replace(model, base=tuple(map(float, base)), steps=steps)
