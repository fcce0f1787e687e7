"""Features together: the kernel that the waves stand for, what is far away, and the way into the file and back."""

from math import exp

import numpy as np
import pytest

from stream_core.errors import ConfigError
from stream_judge.interplay import FARTHEST, Interplay, none, standard
from stream_judge.weights import Weights, parse, render


def waves(features: int, count: int, weights: np.ndarray | None = None) -> Interplay:
    """Random waves over features of mean 10 and spread 2."""
    chance = np.random.default_rng(3)
    return Interplay(
        tuple(f"f{index}" for index in range(features)),
        np.full(features, 10, np.float32),
        np.full(features, 2, np.float32),
        chance.standard_normal((features, count)).astype(np.float32),
        chance.uniform(0, 2 * np.pi, count).astype(np.float32),
        np.ones((count, 4), np.float32) if weights is None else weights.astype(np.float32),
    )


def test_waves_stand_for_a_gaussian_kernel() -> None:
    """Twice the mean product of two questions' waves is exp(-d²/2), d their distance in spreads."""
    interplay = waves(3, 200_000)
    rows = np.array([[10, 10, 10], [12, 10, 10], [10, 14, 12]], np.float32)
    found = interplay.waves(rows)
    products = 2 * found @ found.T / found.shape[1]
    for left in range(3):
        for right in range(3):
            distance = (((rows[left] - rows[right]) / 2) ** 2).sum()
            assert products[left, right] == pytest.approx(exp(-distance / 2), abs=0.01)


def test_one_question_as_many() -> None:
    """The service's way for one question and the training's for a table give the same number."""
    interplay = waves(2, 64, np.random.default_rng(4).standard_normal((64, 4)))
    values = {"f0": 9.0, "f1": 13.5, "not_asked_for": 1.0}
    expected = interplay.waves(np.array([[9.0, 13.5]], np.float32))[0] @ interplay.weights
    assert interplay.parts(values) == pytest.approx(expected.tolist(), abs=1e-4)


def test_what_is_far_away_is_bounded() -> None:
    """No value, however large, gives a number that is not finite."""
    row = np.array([1e30, -1e30], np.float32)
    assert np.abs(standard(row, np.zeros(2, np.float32), np.ones(2, np.float32))).max() == FARTHEST
    assert np.isfinite(waves(2, 16).parts({"f0": 1e30, "f1": -1e30})).all()
    assert none(4).parts({}) == (0.0, 0.0, 0.0, 0.0)


def test_into_the_file_and_back(weights: Weights) -> None:
    """What is written is read again, to the precision of two bytes."""
    before = weights.learned.interplay
    after = parse(render(weights, {}), source="copy").learned.interplay
    assert after.names == before.names
    for name in ("directions", "phases", "weights", "middle", "spread"):
        left, right = getattr(before, name), getattr(after, name)
        assert np.abs(left - right).max() <= np.abs(left).max() / 32767 + 1e-5


def test_blocks_that_do_not_fit_are_refused(weights: Weights) -> None:
    """A file whose phases are too few says so."""
    text = render(weights, {})
    broken = text.replace(f'"shape": [\n    {len(weights.learned.interplay.phases)}\n   ]', '"shape": [\n    1\n   ]')
    assert broken != text
    with pytest.raises(ConfigError):
        parse(broken, source="broken")
