"""The service's own scorer over rows, with a model, and the cross-validation that gives every row an unseen guess."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from judge_training.figures import Floats, Guess, Truth
from judge_training.fit import train
from judge_training.rows import TIERS, Row
from stream_judge.calibration import LEAST_SLOPE
from stream_judge.curves import probability
from stream_judge.learned import HEADS, Learned, evaluate
from stream_judge.score import judge_level
from stream_judge.weights import Curve, Levels

FOLDS: Final = 5
_STRETCH, _CENTRE = 6.0, 0.5
_NEWTON: Final = 25
_PRIOR: Final = 1e-6


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


def fitted_without(
    numbers: Floats, rows: Sequence[Row], folds: Sequence[int]
) -> dict[int, tuple[tuple[Curve, ...], Levels]]:
    """Fit curves and levels for each fold, to the rows of all the others: nothing that a fold is measured with saw it.

    Args:
        numbers: of the rows, by models that had not seen them.
        rows: dev and extra.
        folds: theirs.
    """
    truth, weights, found = truth_of(rows), as_in_dev(rows), {}
    for fold in sorted(set(folds)):
        known = np.flatnonzero(np.array(folds) != fold)
        curves = fit_curves(numbers[known], truth.at(known), weights[known])
        found[fold] = curves, fit_levels(numbers[known], curves, truth.at(known), weights[known])
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


def as_in_dev(rows: Sequence[Row]) -> Floats:
    """Weigh rows so that domains and sources stand as among those that are not extra."""
    wanted = Counter((row.domain, row.source) for row in rows if not row.extra)
    there = Counter((row.domain, row.source) for row in rows)
    return np.array([wanted[row.domain, row.source] / there[row.domain, row.source] for row in rows])


def fit_curves(numbers: Floats, truth: Truth, weights: Floats) -> tuple[Curve, ...]:
    """Calibrate each head on unseen, weighted rows."""
    labels = (truth.local, truth.hpc, truth.cloud, truth.suffices)
    return tuple(_curve(numbers[:, head], good, weights) for head, good in enumerate(labels))


def _curve(numbers: Floats, good: Floats, weights: Floats) -> Curve:
    # Newton's method is at ease near logits, which are about six times as wide as probabilities.
    inputs = np.column_stack([np.ones(len(numbers)), _STRETCH * (numbers - _CENTRE)])
    found = np.array([0.0, 1.0])
    for _ in range(_NEWTON):
        chance = 1 / (1 + np.exp(-(inputs @ found)))
        gradient = inputs.T @ (weights * (good - chance)) - _PRIOR * (found - [0.0, 1.0])
        bend = (inputs * (weights * chance * (1 - chance))[:, None]).T @ inputs + _PRIOR * np.eye(2)
        found += np.linalg.solve(bend, gradient)
    ease, slope = found[0], max(LEAST_SLOPE, found[1])
    return Curve(float(ease - slope * _STRETCH * _CENTRE), float(slope * _STRETCH))


def guess_of(numbers: Floats, curves: Sequence[Curve], levels: Levels) -> Guess:
    """What the service says, less the assumed features."""
    chances = np.array(
        [[probability(c.ease + c.slope * x) for c, x in zip(curves, row, strict=True)] for row in numbers]
    )
    level = [judge_level(local, hpc, levels)[0].value - 1 for local, hpc in chances[:, :2]]
    return Guess(chances[:, 0], chances[:, 1], chances[:, 2], chances[:, 3], np.array(level))


def fit_levels(numbers: Floats, curves: Sequence[Curve], truth: Truth, weights: Floats) -> Levels:
    """Weigh the levels so that accuracy and macro-F1 together are best on weighted rows."""
    guess = guess_of(numbers, curves, Levels(0, 1, 1))
    gap = np.maximum(truth.local, truth.hpc) - np.maximum(guess.local, guess.hpc)
    start = Levels(round(max(0.0, float(weights @ gap / weights.sum())), 4), 1.0, 1.0)
    reached = np.minimum(1.0, np.maximum(guess.local, guess.hpc) + start.rescue)
    best, best_value = start, -1.0
    for medium in np.arange(0.8, 2.61, 0.1).round(2):
        for high in np.arange(0.6, 2.01, 0.1).round(2):
            kinds = np.column_stack([guess.local, medium * (reached - guess.local), high * (1 - reached)])
            value = _agreement(kinds.argmax(axis=1), truth.needed, weights)
            if value > best_value + 1e-9:
                best, best_value = replace(start, medium=float(medium), high=float(high)), value
    return best


def _agreement(level: npt.NDArray[np.int64], needed: npt.NDArray[np.int64], weights: Floats) -> float:
    """Accuracy and macro-F1 together, of weighted rows."""
    scores = []
    for kind in range(len(TIERS)):
        right = weights @ ((level == kind) & (needed == kind))
        scores.append(2 * right / max(1.0, weights @ (level == kind) + weights @ (needed == kind)))
    return float(weights @ (level == needed) / weights.sum() + np.mean(scores))
