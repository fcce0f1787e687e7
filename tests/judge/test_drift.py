"""The judge's scores against their own past."""

import random

from stream_judge.drift import Drift


def test_the_same_questions_drift_nowhere():
    """Scores of one spread, however many: the index stays where nothing happened."""
    draw, drift = random.Random(7), Drift()  # noqa: S311  (no secret)
    highest = 0.0
    for _ in range(12_000):
        drift.note(draw.betavariate(4, 2))
        highest = max(highest, drift.index)
    assert highest < 0.1


def test_other_questions_are_noticed_and_become_usual():
    """Harder questions push the index over 0.25 within a few hundred; when they stay, they are the new usual."""
    draw, drift = random.Random(7), Drift()  # noqa: S311  (no secret)
    for _ in range(5_000):
        drift.note(draw.betavariate(6, 2))
    for _ in range(400):
        drift.note(draw.betavariate(2, 6))
    assert drift.index > 0.25
    for _ in range(100_000):
        drift.note(draw.betavariate(2, 6))
    assert drift.index < 0.1


def test_little_says_nothing():
    """The first scores are no drift, and the ends of the range have their place."""
    drift = Drift()
    for probability in (0.0, 1.0) * 400:
        drift.note(probability)
    assert drift.index == 0.0
