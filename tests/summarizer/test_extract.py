"""Sentences are chosen for what they say, in their own words and order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_summarizer.extract import LONGEST_SENTENCE, Passage, rank, sentences, words

from .building import text


def passages(*texts: str, role: str = "user") -> list[Passage]:
    return [Passage(index, role, text, len(text) // 4 + 1) for index, text in enumerate(texts)]


def size(text: str) -> int:
    return len(text) // 4 + 1


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.50 euros at www.example.org today.", ["It costs 3.50 euros at www.example.org today."]),
        ("会议改到星期四。小会议室。", ["会议改到星期四。", "小会议室。"]),
        ("- first\n\n```\ncode()\n```\n---", ["- first", "code()"]),
        ("", []),
        ("...", []),
    ],
)
def test_sentences(text: str, pieces: list[str]) -> None:
    """Each row: a text and its sentences; marks alone are none."""
    assert sentences(text) == pieces


def test_long_runs_are_cut() -> None:
    """A text without an end is cut at spaces, and nothing of it is lost."""
    text = "word " * 1000
    pieces = sentences(text)
    assert max(map(len, pieces)) <= LONGEST_SENTENCE
    assert " ".join(pieces).split() == text.split()
    assert "".join(sentences("x" * 5000)) == "x" * 5000


def test_words() -> None:
    """Words are compared by their beginning; East Asian text by pairs of characters."""
    assert words("Prices priced, PRICE!") == ["prices", "priced", "price"]
    assert words("reservation reservations") == ["reserv", "reserv"]
    assert words("小会议") == ["小会", "会议"]


def test_question_finds_its_sentence() -> None:
    """Of many sentences, the one that the question asks for is chosen first."""
    texts = [f"The walk along river number {n} was pleasant and quiet." for n in range(60)]
    texts[7] = "The locksmith wants 84 euros for the blue door."
    ranking = rank(passages(*texts), "How much did the locksmith want?")
    assert ranking.select(30) == "user (7): The locksmith wants 84 euros for the blue door."


def test_facts_before_filler() -> None:
    """Without a question, a sentence with a number and a name goes before talk."""
    ranking = rank(passages("Well that is nice to hear from you.", "Send 12 boxes to Ms Keller by 3 May."), "")
    assert ranking.select(22) == "user (1): Send 12 boxes to Ms Keller by 3 May."


def test_user_before_assistant() -> None:
    """Of two like sentences the user's is chosen."""
    pair = [Passage(0, "assistant", "Bring the green key.", 5), Passage(1, "user", "Bring the brown key.", 5)]
    assert rank(pair, "").select(13) == "user (1): Bring the brown key."


def test_written_in_order() -> None:
    """Chosen sentences stand in their order, a line a message; what is left out between them shows."""
    ranking = rank(
        passages("Alpha 1 came. Nothing much happened then. Beta 2 went.", "Gamma 3 stays."), "alpha beta gamma"
    )
    assert ranking.select(10_000) == (
        "user (0): Alpha 1 came. Nothing much happened then. Beta 2 went.\nuser (1): Gamma 3 stays."
    )
    assert ranking.select(30) == "user (0): Alpha 1 came. ... Beta 2 went.\nuser (1): Gamma 3 stays."


def test_said_twice_kept_once() -> None:
    """A sentence that was said twice is kept once."""
    assert rank(passages("The code is 77.", "The code is 77."), "").select(1000).count("77") == 1


@given(st.lists(text, max_size=8), text, st.integers(0, 300))
def test_within_budget(texts: list[str], question: str, budget: int) -> None:
    """Whatever the texts, the selection is within the budget, made of their words, and the same every time."""
    found = rank(passages(*texts), question).within(budget, size)
    assert found == "" or size(found) <= budget
    assert found == rank(passages(*texts), question).within(budget, size)
    source = {piece for text in texts for piece in sentences(text)}
    for line in found.splitlines():
        body = line.partition(": ")[2]
        assert any(body.startswith(piece) for piece in source)


def test_uses_the_budget() -> None:
    """Where there is enough to say, at least nine tenths of the budget are used."""
    texts = [f"Point {n} is that lamp {n} costs {n * 3} euros." for n in range(400)]
    found = rank(passages(*texts), "").within(1000, size)
    assert 900 <= size(found) <= 1000
