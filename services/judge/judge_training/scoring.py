"""The service's own scorer over rows, with a model, and the cross-validation that gives every row an unseen guess."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from judge_training.figures import Floats, Guess, Truth, accuracy, macro_f1
from judge_training.fit import train
from judge_training.rows import Row
from stream_judge.calibration import fit_curve
from stream_judge.curves import probability
from stream_judge.learned import HEADS, Learned, evaluate
from stream_judge.score import judge_level
from stream_judge.weights import Curve, Levels

FOLDS: Final = 5
_STRETCH, _CENTRE = 6.0, 0.5


class Unseen(NamedTuple):
    """Raw numbers of rows by models that have not seen them: (rows, heads), both forms."""

    plain: Floats
    stripped: Floats


def raw(model: Learned, rows: Sequence[Row]) -> Unseen:
    """Raw numbers of rows."""
    return Unseen(
        *(
            np.array([evaluate(model, view.values, view.grams).heads for view in views])
            for views in ([row.plain for row in rows], [row.stripped for row in rows])
        )
    )


def models_without(rows: Sequence[Row], folds: Sequence[int]) -> dict[int, Learned]:
    """Train one model for each fold, on all the others."""
    return {
        fold: train([row for row, at in zip(rows, folds, strict=True) if at != fold]) for fold in sorted(set(folds))
    }


def unseen(rows: Sequence[Row], folds: Sequence[int], models: Mapping[int, Learned]) -> Unseen:
    """Cross-validate: each row's numbers come from the model that has not seen its fold."""
    result = Unseen(np.zeros((len(rows), len(HEADS))), np.zeros((len(rows), len(HEADS))))
    for fold, model in models.items():
        test = np.flatnonzero(np.array(folds) == fold)
        plain, stripped = raw(model, [rows[index] for index in test])
        result.plain[test], result.stripped[test] = plain, stripped
    return result


def fitted_without(numbers: Floats, truth: Truth, folds: Sequence[int]) -> dict[int, tuple[tuple[Curve, ...], Levels]]:
    """Fit curves and levels for each fold, to the rows of all the others: nothing that a fold is measured with saw it.

    Args:
        numbers: of the rows that have a truth, by models that had not seen them.
        truth: theirs.
        folds: theirs.
    """
    found = {}
    for fold in sorted(set(folds)):
        known = np.flatnonzero(np.array(folds) != fold)
        curves = fit_curves(numbers[known], truth.at(known))
        found[fold] = curves, fit_levels(numbers[known], curves, truth.at(known))
    return found


def guess_without(
    numbers: Floats, fitted: Mapping[int, tuple[tuple[Curve, ...], Levels]], folds: Sequence[int]
) -> Guess:
    """What the service would say of each row, had it not seen the row's fold."""
    parts, order = [], []
    for fold, (curves, levels) in fitted.items():
        test = np.flatnonzero(np.array(folds) == fold)
        parts.append(guess_of(numbers[test], curves, levels))
        order += test.tolist()
    names = Guess.__dataclass_fields__
    return Guess(*(np.concatenate([getattr(part, name) for part in parts]) for name in names)).at(np.argsort(order))


def truth_of(rows: Sequence[Row]) -> Truth:
    """Their outcomes."""
    outcomes = np.array([row.outcomes for row in rows])
    return Truth(
        outcomes[:, 0],
        outcomes[:, 1],
        outcomes[:, 2],
        np.array([row.suffices for row in rows]),
        np.array([row.needed for row in rows]),
    )


def fit_curves(numbers: Floats, truth: Truth) -> tuple[Curve, ...]:
    """Calibrate each head on unseen rows."""
    labels = (truth.local, truth.hpc, truth.cloud, truth.suffices)
    return tuple(_curve(numbers[:, head], good) for head, good in enumerate(labels))


def _curve(numbers: Floats, good: Floats) -> Curve:
    # Newton's method is at ease near logits, which are about six times as wide as probabilities.
    ease, slope = fit_curve([_STRETCH * (number - _CENTRE) for number in numbers], list(good), held=False)
    return Curve(ease - slope * _STRETCH * _CENTRE, slope * _STRETCH)


def guess_of(numbers: Floats, curves: Sequence[Curve], levels: Levels) -> Guess:
    """What the service says, less the assumed features."""
    chances = np.array(
        [[probability(c.ease + c.slope * x) for c, x in zip(curves, row, strict=True)] for row in numbers]
    )
    level = [judge_level(local, hpc, levels)[0].value - 1 for local, hpc in chances[:, :2]]
    return Guess(chances[:, 0], chances[:, 1], chances[:, 2], chances[:, 3], np.array(level))


def fit_levels(numbers: Floats, curves: Sequence[Curve], truth: Truth) -> Levels:
    """Weigh the levels so that accuracy and macro-F1 together are best."""
    guess = guess_of(numbers, curves, Levels(0, 1, 1))
    rescue = float(np.maximum(truth.local, truth.hpc).mean() - np.maximum(guess.local, guess.hpc).mean())
    start = Levels(round(max(0.0, rescue), 4), 1.0, 1.0)
    best, best_value = start, -1.0
    for medium in np.arange(0.8, 2.61, 0.1):
        for high in np.arange(0.6, 2.01, 0.1):
            levels = replace(start, medium=round(float(medium), 2), high=round(float(high), 2))
            level = np.array(
                [judge_level(a, b, levels)[0].value - 1 for a, b in zip(guess.local, guess.hpc, strict=True)]
            )
            value = accuracy(level, truth.needed) + macro_f1(level, truth.needed)
            if value > best_value + 1e-9:
                best, best_value = levels, value
    return best
