"""What the judge's tests share: the committed weights and one scorer over them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import stream_judge
from stream_judge.context import Turn, select
from stream_judge.features import Shape, extract
from stream_judge.grams import grams
from stream_judge.score import Score, score
from stream_judge.weights import Weights, parse

TIERS = ("local", "hpc", "cloud")
WEIGHTS_FILE = Path(stream_judge.__file__).with_name("weights.json")

Judge = Callable[..., Score]


@pytest.fixture(scope="session")
def weights() -> Weights:
    return parse(WEIGHTS_FILE.read_text(encoding="utf-8"), source="weights.json")


@pytest.fixture(scope="session")
def judge(weights: Weights) -> Judge:
    """Score a text or a conversation for tiers."""

    def run(text: str | Sequence[Turn], shape: Shape | None = None, tiers: Sequence[str] = TIERS) -> Score:
        turns = [Turn("user", text)] if isinstance(text, str) else text
        question = select(turns)
        return score(extract(question, shape or Shape()), grams(question.text), tiers, weights)

    return run
