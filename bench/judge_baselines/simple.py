"""The simple judges: each learns from rows with features and guesses for others. Numpy, nothing tuned."""

from collections.abc import Callable, Sequence
from math import log1p
from typing import Final

import numpy as np
from judge_training.figures import Floats, Guess
from judge_training.rows import Row

NEIGHBOURS: Final = 50
PRIOR: Final = 1.0
"""Of logistic regression, as scikit-learn's default C = 1."""
_NEWTON: Final = 12

Fit = Callable[[Floats, Floats], Callable[[Floats], Floats]]
"""(features, labels) in; (features) -> probabilities out."""


def labels_of(rows: Sequence[Row]) -> Floats:
    """Seven labels a row: local, hpc, cloud, suffices, and one per level needed."""
    return np.array([[*row.outcomes, row.suffices, *(float(row.needed == kind) for kind in range(3))] for row in rows])


def guess(fit: Fit, known: Floats, labels: Floats, asked: Floats) -> Guess:
    """Fit every label, guess all."""
    chances = np.column_stack([fit(known, labels[:, column])(asked) for column in range(labels.shape[1])])
    return Guess(*(chances[:, column] for column in range(4)), chances[:, 4:].argmax(axis=1))


def logistic(features: Floats, labels: Floats) -> Callable[[Floats], Floats]:
    """Logistic regression by Newton's method; the intercept is not shrunk."""
    inputs = np.column_stack([features, np.ones(len(features))])
    prior = np.full(inputs.shape[1], PRIOR)
    prior[-1] = 0.0
    weights = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON):
        chance = 1 / (1 + np.exp(-(inputs @ weights)))
        gradient = inputs.T @ (labels - chance) - prior * weights
        bend = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + np.diag(prior + 1e-9)
        weights += np.linalg.solve(bend, gradient)
    return lambda asked: 1 / (1 + np.exp(-(np.column_stack([asked, np.ones(len(asked))]) @ weights)))


def nearest(features: Floats, labels: Floats) -> Callable[[Floats], Floats]:
    """Mean label of the nearest by cosine."""

    def ask(asked: Floats) -> Floats:
        order = np.argpartition(-(asked @ features.T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        return labels[order].mean(axis=1)

    return ask


def by_chance(features: Floats, labels: Floats) -> Callable[[Floats], Floats]:
    """A random number, the same each run."""
    seed = int(1e6 * labels.mean()) + len(features)
    return lambda asked: np.random.default_rng(seed).random(len(asked))


def lengths(texts: Sequence[str]) -> Floats:
    """The only feature of the judge by length."""
    return np.array([[log1p(len(text))] for text in texts])
