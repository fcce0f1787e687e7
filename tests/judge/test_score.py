"""Probabilities, level, confidence and reasons."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.errors import ConfigError
from stream_judge.calibration import Calibration
from stream_judge.context import Turn, select
from stream_judge.curves import STANDARD_POSITIONS, positions
from stream_judge.features import FEATURES, Kind, Shape, extract
from stream_judge.grams import grams
from stream_judge.score import LEAST_EFFECT, MOST_REASONS, Level, judge_level, score
from stream_judge.weights import Levels, Weights, parse, render

from .conftest import WEIGHTS_FILE, Judge

INJECTIONS_FILE = Path(__file__).parents[2] / "bench/judge_injections.jsonl"

HARD = "Prove that every finite group of odd order is solvable."
DERIVATION = """Consider a particle in a one-dimensional infinite square well of width L. First, derive the energy
eigenfunctions from the time-independent Schrödinger equation. Then compute the expectation values of x, x^2, p and p^2
in the n-th state. Next, show that the uncertainty relation is satisfied for every n. Finally, add a delta perturbation
at the centre and derive the first-order correction to all energies, and discuss which levels are unaffected."""


@pytest.mark.parametrize(
    ("text", "local_at_least"),
    [
        ("hi", 0.9),
        ("thanks a lot", 0.9),
        ("what is 2+2", 0.8),
        ("translate to French: hello", 0.85),
        ("What is the capital of France?", 0.8),
        ("你好", 0.9),
        ("How do I reverse a list in Python?", 0.7),
    ],
)
def test_small_talk_is_low(judge: Judge, text: str, local_at_least: float) -> None:
    """Small talk and everyday questions are the local tier's."""
    result = judge(text)
    assert result.level is Level.LOW
    assert result.probabilities[0] >= local_at_least


@pytest.mark.parametrize(
    "text",
    [
        HARD,
        DERIVATION,
        "Derive the Navier-Stokes equations step by step and show that they reduce to Euler's equations.",
        "证明每个奇数阶有限群都是可解的",
        "Implement a lock-free concurrent hash map and prove its linearizability.",
    ],
)
def test_proofs_and_derivations_are_high(judge: Judge, text: str) -> None:
    """What asks for a proof or a long derivation is beyond the local tier."""
    result = judge(text)
    assert result.level is Level.HIGH
    assert result.probabilities[0] < 0.4


@pytest.mark.parametrize("message", ["continue", "and in French?", "now in more detail", "why?"])
def test_the_thread_is_inherited(judge: Judge, message: str) -> None:
    """A short message in a hard thread is as hard as the thread, in an easy one as easy."""
    hard, easy = (
        [Turn("user", text), Turn("assistant", "…"), Turn("user", message)] for text in (HARD, "Name a fruit")
    )
    assert judge(hard).level is Level.HIGH
    assert judge(easy).level is Level.LOW
    assert judge(message).level is Level.LOW


_LINES = [json.loads(line) for line in INJECTIONS_FILE.read_text(encoding="utf-8").splitlines()]
ORDERS = [line["order"] for line in _LINES if "order" in line]
QUESTIONS = [line["question"] for line in _LINES if "question" in line]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("question", [*QUESTIONS, DERIVATION])
def test_injections_do_not_move_the_score(judge: Judge, question: str, order: str) -> None:
    """A sentence that tells the judge what to answer moves neither level nor probabilities, before or after."""
    alone = judge(question)
    for told in (judge(f"{question} {order}"), judge(f"{order} {question}"), judge(f"{question}\n\n{order}")):
        assert told.level is alone.level
        assert told.probabilities == pytest.approx(alone.probabilities, abs=0.05)


@given(
    text=st.text(st.characters(), max_size=300),
    tiers=st.lists(
        st.sampled_from([*STANDARD_POSITIONS, "edge", "a", "b", "\ud800"]), min_size=1, max_size=7, unique=True
    ),
    tools=st.integers(0, 300),
)
def test_any_question(judge: Judge, text: str, tiers: list[str], tools: int) -> None:
    """Any text and tiers: probabilities in [0, 1] that never fall, a bounded confidence, sorted reasons; repeatable."""
    shape = Shape(tool_count=tools)
    result = judge(text, shape, tiers)
    assert len(result.probabilities) == len(tiers)
    assert all(0 < p < 1 for p in result.probabilities)
    assert all(left <= right for left, right in pairwise(result.probabilities))
    assert 0 <= result.confidence <= 1
    sizes = [abs(reason.effect) for reason in result.reasons]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= MOST_REASONS
    assert all(size >= LEAST_EFFECT for size in sizes)
    assert result == judge(text, shape, tiers)


@given(st.fixed_dictionaries({feature.name: st.floats(0, 1e9) for feature in FEATURES}))
def test_any_values(weights: Weights, values: dict[str, float]) -> None:
    """Whatever the features say, probabilities stay probabilities and never fall."""
    result = score(values, {}, tuple(STANDARD_POSITIONS), weights)
    local, hpc, cloud = result.probabilities
    assert 0 < local <= hpc <= cloud < 1
    assert 0 < result.suffices < 1


@pytest.mark.parametrize(
    ("local", "hpc", "level", "confidence"),
    [
        (0.9, 0.95, Level.LOW, 0.9),
        (0.2, 0.9, Level.MEDIUM, 0.75),
        (0.1, 0.2, Level.HIGH, 0.75),
        (0.6, 0.5, Level.LOW, 0.6),
    ],
)
def test_level(local: float, hpc: float, level: Level, confidence: float) -> None:
    """The level is the smallest tier that answers well, most probably; the confidence is its probability."""
    assert judge_level(local, hpc, Levels(0.05, 1, 1)) == (level, pytest.approx(confidence))


def test_calibration_moves_its_own_tier_alone(weights: Weights, judge: Judge) -> None:
    """An institution's ease and slope change the tier that they name, not the level of the question."""
    question = select([Turn("user", "Why do cats purr when they sleep?")])
    values, words = extract(question, Shape()), grams(question.text)
    own = score(values, words, ("local", "cloud"), weights, calibration=Calibration("x", {"local": (-3.0, 1.0)}))
    plain = score(values, words, ("local", "cloud"), weights)
    assert own.probabilities[0] < plain.probabilities[0]
    assert own.probabilities[1] == plain.probabilities[1]
    assert own.level is plain.level


def test_reasons_are_in_words(judge: Judge) -> None:
    """The strongest reason for a proof's score is that it asks for a proof, and it speaks for a stronger model."""
    first = judge(HARD).reasons[0]
    assert (first.feature, first.text) == ("proof", "asks for a proof")
    assert first.effect > 0
    assert judge("hi").reasons[0].effect < 0
    assert "very few words" in {reason.text for reason in judge("hi").reasons}


def test_confidence_grows_with_the_distance(judge: Judge) -> None:
    """Far from a boundary the judge is surer than near one."""
    assert judge("hi").confidence > judge("Compare Kant and Mill on the ethics of lying.").confidence
    assert judge(DERIVATION).confidence > judge("Show that the sum of two even numbers is even.").confidence


@pytest.mark.parametrize(
    ("tiers", "places"),
    [
        (["local", "hpc", "cloud"], [0, 1, 2]),
        (["hpc", "cloud"], [1, 2]),
        (["cloud"], [2]),
        (["one"], [0]),
        (["one", "two"], [0, 2]),
        (["a", "b", "c", "d"], [0, 2 / 3, 4 / 3, 2]),
        (["local", "edge", "hpc", "cloud"], [0, 0.5, 1, 2]),
        (["edge", "local"], [-0.5, 0]),
        (["cloud", "giant"], [2, 2.5]),
        (["campus", "hpc", "giant"], [0, 1, 2]),
        (["cloud", "local"], [0, 2]),
    ],
)
def test_positions(tiers: list[str], places: list[float]) -> None:
    """Known names stand on their own curve, others between or beyond them by their place in the order."""
    assert positions(tiers, STANDARD_POSITIONS) == pytest.approx(places)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True),
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1, 3)),
)
def test_positions_never_fall(tiers: list[str], known: dict[str, float]) -> None:
    """Whatever positions the operator names, a later tier is never placed before an earlier one."""
    placed = positions(tiers, known)
    assert len(placed) == len(tiers)
    assert all(left <= right + 1e-12 for left, right in pairwise(placed))


def test_committed_weights(weights: Weights) -> None:
    """The committed file says where it comes from, is small, and which weights were only assumed."""
    document = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    assert "Apache-2.0" in document["about"]
    assert WEIGHTS_FILE.stat().st_size < 10_000_000
    assert set(document["assumed"]) == {feature.name for feature in FEATURES if feature.kind is Kind.ASSUMED}
    assert document["figures"]["plain"]["auc_local_correct"] > 0.65
    assert len(weights.learned.grams) > 10_000


def test_rendered_weights_are_read_back(weights: Weights) -> None:
    """Writing what was read gives the same numbers, so training writes what the service uses."""
    again = parse(render(weights, {}), source="again")
    assert again.learned.steps == weights.learned.steps
    assert again.curves == weights.curves
    assert again.learned.grams.keys() == weights.learned.grams.keys()
    for name, gram in weights.learned.grams.items():
        assert again.learned.grams[name].weights == pytest.approx(gram.weights, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("curves"), "curves"),
        (lambda d: d["steps"].pop("length"), "missing"),
        (lambda d: d["assumed"].update(mood=1), "mood"),
        (lambda d: d.update(features_version=999), "999"),
        (lambda d: d["assumed"].update(proof=float("nan")), "finite"),
        (lambda d: d["steps"]["length"]["levels"].pop(), "steps.length"),
        (lambda d: d["steps"]["length"].update(cuts=[2, 1], levels=[[0] * 4] * 3), "rise"),
        (lambda d: d["curves"].__setitem__(0, [0, -1]), "slopes"),
        (lambda d: d.update(grams="AAAA"), "grams"),
        (lambda d: d.update(heads=["local"]), "heads"),
        (lambda d: d.update(steps=3), "weights file"),
    ],
)
def test_wrong_weights(change, words: str) -> None:
    """A file that does not fit this program is refused with the reason, never half used."""
    document = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    change(document)
    with pytest.raises(ConfigError, match=words):
        parse(json.dumps(document), source="w.json")


def test_version_follows_the_numbers(weights: Weights) -> None:
    """Another weight is another version, so that no cache mixes their scores."""
    document = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    document["unknown"] += 0.1
    assert parse(json.dumps(document), source="w.json").version != weights.version
