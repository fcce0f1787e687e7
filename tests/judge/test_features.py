"""From a question to named numbers."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_judge.context import Turn, select
from stream_judge.features import FEATURES, Shape, extract, without_exam_format
from stream_judge.output_length import expected_tokens, requested_tokens

NAMES = [feature.name for feature in FEATURES]


def features(text: str, shape: Shape | None = None) -> dict[str, float]:
    return dict(extract(select([Turn("user", text)]), shape or Shape()))


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("def f(x):\n    return x + 1\n", {"code"}),
        ("```\nSELECT name FROM users\n```", {"code"}),
        (r"Evaluate \int_0^1 x^2 dx and $\frac{1}{2}$", {"latex", "operators", "calculation"}),
        ("A mass of 5 kg falls 20 m at 9.8 m", {"units", "numbers", "science_words"}),
        ("Which one?\nA. red\nB. green\nC. blue\nD. none", {"options", "fact_words"}),
        ('He said "no" and left', {"quotations"}),
        ("Why does ice float?", {"explain_words"}),
        ("All of these are true EXCEPT one", {"negation"}),
        ("Suppose that n is given. Determine m.", {"inference"}),
        ("Each apple costs 2 dollars, how many apples?", {"everyday_numbers"}),
        ("Is every polynomial of odd degree surjective over the integers?", {"mathematics_words"}),
        ("The defendant appealed to the court.", {"law_words"}),
        ("How do cells copy DNA?", {"life_words"}),
        ("What did the treaty mean for the empire?", {"society_words"}),
        ("Is the argument of Kant about virtue valid?", {"philosophy_words"}),
        ("Which sorting algorithm uses least memory?", {"computing_words"}),
        ("Prove that there are infinitely many primes.", {"proof"}),
        ("Show that the set is closed.", {"proof"}),
        ("Beweise den Satz von Pythagoras.", {"proof"}),
        ("证明勾股定理", {"proof", "script"}),
        ("Derive the formula for the period of a pendulum.", {"derivation"}),
        ("Think carefully, step by step.", {"reasoning"}),
        ("1. Read it.\n2. Sort it.\n3. Print it.\n", {"several_parts"}),
        ("Design a scalable architecture and discuss trade-offs.", {"design"}),
        ("Hello there!", {"courtesy", "brief"}),
        ("Please translate this to Italian: good morning", {"everyday_task", "conversational"}),
        ("Какая столица Франции?", {"script", "brief"}),
        ("Переведи слово 東京都庁舎前駅", {"script", "mixed_scripts"}),
        ("Write an essay about rivers.", {"long_answer"}),
    ],
)
def test_marks(text: str, present: set[str]) -> None:
    """Each mark of a text is seen under its name."""
    values = features(text)
    assert present <= {name for name in present if values[name] > 0}


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (Shape(tool_count=3), "tools"),
        (Shape(structured_output=True), "structured_output"),
        (Shape(modalities=frozenset({"image"})), "modalities"),
        (Shape(max_output_tokens=10), "small_limit"),
    ],
)
def test_shape(shape: Shape, name: str) -> None:
    """What the request says beside its text is a feature of its own and changes no other."""
    plain, shaped = features("What is this?"), features("What is this?", shape)
    assert {key for key in NAMES if plain[key] != shaped[key]} == {name}


def test_depth() -> None:
    """A later turn of a conversation is deeper than its first."""
    first = extract(select([Turn("user", "Name a river.")]), Shape())
    later = extract(select([Turn("user", "Hello there!")] * 6 + [Turn("user", "Name a river.")]), Shape())
    assert first["depth"] == 0 < later["depth"] <= 1


def test_exam_format_is_taken_off() -> None:
    """Lettered options change nothing but what is named after them: people don't write that way."""
    stem = "Which of these gases is the heaviest at room temperature?"
    exam = f"{stem}\n\nA. 4 kg of helium\nB. argon, since $\\rho$ = 1.8\nC. xenon\nAnswer:"
    with_options, plain = features(exam), features(stem)
    assert with_options["options"] > 0 == plain["options"]
    assert {name: with_options[name] for name in NAMES if not name.startswith("option")} == pytest.approx(
        {name: plain[name] for name in NAMES if not name.startswith("option")}
    )


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a) compute x\nb) prove y\nc) draw z", 0),
        ("A. one\nB. two", 0),
        ("A. one\nB. two\nC. three", 3),
        ("Q?\n(A) one\n(B) two\n(C) three\n(D) four", 4),
    ],
)
def test_what_counts_as_options(text: str, options: int) -> None:
    """Parts of a task, a pair of lines, or a text of nothing else keep their words."""
    left, count = without_exam_format(text)
    assert count == options
    assert left


_ANY = st.text(st.characters(), max_size=400) | st.text(st.sampled_from("a 1.$\\\n=(A)\ud800\x00ß证é"), max_size=400)


@given(_ANY, st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_text(text: str, tools: int, structured: bool, limit: int) -> None:
    """Any text, with control characters and lone surrogates, gives each feature a finite value, always the same."""
    shape = Shape(frozenset({"image"}), tools, structured, limit)
    values = features(text, shape)
    assert set(values) == set(NAMES)
    assert all(math.isfinite(value) for value in values.values())
    assert all(value >= 0 for value in values.values())
    assert values == features(text, shape)
    expected = expected_tokens(values, text, limit)
    assert 1 <= expected <= (limit or 16_384)


_NASTY = ["a", " ", "\n", ".", "1 ", "1,", "$", "\\", "(", '"', "A. x\n", "1. ", "a) ", "select ", "leite ", "fasse "]
_NASTY += ["== ", "\t \n", "é", "证", "\ud83d", "\x00", "and ", "it ", "in 1 ", "prove ", "<", "5 kg ", "?! ", "{}"]


@pytest.mark.parametrize("piece", _NASTY)
def test_time_is_bounded(piece: str) -> None:
    """A megabyte of whatever would make a careless pattern slow costs no more than six thousand characters."""
    text = piece * (1_000_000 // len(piece))
    best = math.inf
    for _ in range(5):
        began = time.process_time()
        values = features(text)
        best = min(best, time.process_time() - began)
        if best < 0.05:
            break
    assert best < 0.05
    assert values["length"] <= math.log1p(len(text))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("explain it in 500 words", 675),
        ("give me 3 sentences", 81),
        ("a summary of 2 paragraphs, please", 260),
        ("write exactly 100 tokens", 100),
        ("list 10 items", 320),
        ("write an essay about rivers", 1100),
        ("in 99999 pages", 16_384),
        ("she read 120 pages on monday", None),
        ("hello", None),
    ],
)
def test_requested_length(text: str, tokens: int | None) -> None:
    """A length that the text asks for is read; a number of pages in a story is not one."""
    assert requested_tokens(text) == tokens


@pytest.mark.parametrize(
    ("text", "limit", "low", "high"),
    [("hi", 0, 1, 60), ("Prove the theorem of Pythagoras.", 0, 500, 1500), ("Prove it in full.", 64, 64, 64)],
)
def test_expected_tokens(text: str, limit: int, low: int, high: int) -> None:
    """A greeting is answered shortly, a proof at length, and never longer than the caller allows."""
    assert low <= expected_tokens(features(text), text, limit) <= high


@settings(max_examples=30)
@given(st.text(max_size=50))
def test_case_of_exam_marks_only(text: str) -> None:
    """Shouting does not change what the words are."""
    assert features(text.upper().lower())["law_words"] == features(text.upper())["law_words"]
