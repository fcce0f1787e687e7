"""What the other models' answers say about an outcome: one greedy run's 0 or 1 is a noisy target, this is less so.

For each source the outcome is regressed on those of the other models that answered the same questions, and each
question gets the expectation of a regression that has not seen it. The judge is trained on a mix of expectation and
outcome: what other models found hard is hard, and what this one got wrong by chance weighs little.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from judge_training.figures import Floats
from judge_training.rows import Row

PARTS: Final = 5
RIDGE: Final = 10.0


def mixed(rows: Sequence[Row], outcomes: Floats, excluded: Sequence[int], share: float) -> Floats:
    """Mix outcomes with what the other models make expected.

    Args:
        rows: the questions.
        outcomes: of each.
        excluded: which of the three reference models' answers must not be looked at, since the outcome is made of them.
        share: of the outcome itself in the mix.
    """
    expected = np.zeros(len(rows))
    for source in sorted({row.source for row in rows}):
        held = np.array([index for index, row in enumerate(rows) if row.source == source])
        expected[held] = _expected(_others([rows[index] for index in held], excluded), outcomes[held])
    return share * outcomes + (1 - share) * expected


def _others(rows: Sequence[Row], excluded: Sequence[int]) -> Floats:
    """The other models' outcomes, a column each; a run that is missing counts as one half."""
    models = sorted({model for row in rows for model in row.others})
    references = [index for index in range(3) if index not in excluded]
    return np.array(
        [[*(row.others.get(model, 0.5) for model in models), *(row.outcomes[i] for i in references)] for row in rows]
    ).reshape(len(rows), -1)


def _expected(answers: Floats, outcomes: Floats) -> Floats:
    part = np.arange(len(outcomes)) % PARTS
    result = np.zeros(len(outcomes))
    for number in range(PARTS):
        known, asked = part != number, part == number
        if not known.any():
            known = asked
        centre, level = answers[known].mean(axis=0), outcomes[known].mean()
        inputs = answers[known] - centre
        bend = inputs.T @ inputs + RIDGE * np.eye(inputs.shape[1])
        weights = np.linalg.solve(bend, inputs.T @ (outcomes[known] - level))
        result[asked] = np.clip(level + (answers[asked] - centre) @ weights, 0.0, 1.0)
    return result
