"""Sentences are chosen for what they say, in their own words and order."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_summarizer.analysis import Analysis
from stream_summarizer.extract import FACTS, Passage, rank
from stream_summarizer.facts import facts_of
from stream_summarizer.terms import LONGEST_SENTENCE, content_words, sentences, words

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
    """Words are compared by their stems; East Asian text by pairs of characters."""
    assert len(set(words("Planned plans, PLANNING plan!"))) == 1
    assert len(set(words("reservation reservations"))) == 1
    assert words("小会议") == ["小会", "会议"]


def test_question_finds_its_message() -> None:
    """Of many messages, the one that the question asks for is there, and what stands beside it before the rest."""
    texts = [f"The walk along the river on that day was pleasant, quiet and long, number {n}." for n in range(60)]
    texts[7] = "The locksmith wants 84 euros for the blue door."
    found = rank(passages(*texts), "How much did the locksmith want?").select(120)
    assert "user (7): The locksmith wants 84 euros for the blue door." in found.splitlines()
    assert len(found.splitlines()) < 6


def test_what_is_asked_for_is_a_kind_of_value() -> None:
    """A question for a price finds an amount that shares no word with it: in a tiny budget the values alone stay."""
    texts = [f"On day {n} Anna went to Oslo and told us of the weather there again." for n in range(40)]
    texts[3] = "They would do the whole roof for $4,200 and not less."
    found = rank(passages(*texts), "What was the price in my first mail?").select(14)
    assert found.startswith(FACTS)
    assert "$4,200" in found


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ("Table for four at half past 10 in the morning.", ["four at", "half past 10 in the morning"]),
        ("We saw Julie Weigel on March 2nd at 10:30 am.", ["Julie Weigel", "March 2nd", "10:30 am"]),
        ("It is at 1026 Oak Grove Road, call 915-646-5102.", ["1026 Oak Grove Road", "915-646-5102"]),
        ("That costs $37.00 a day in Heathrow International Airport.", ["$37.00", "Heathrow International Airport"]),
        ("Great! Thanks for everything.", []),
        ("Set `max_rows` in v2.1.3 for a_long_name.", ["`max_rows`", "v2.1.3", "a_long_name"]),
    ],
)
def test_facts(said: str, facts: list[str]) -> None:
    """Each row: a sentence and its values; words with a capital for another reason are none."""
    assert [fact.text for sentence in sentences(said) for fact in facts_of(sentence)] == facts


def test_facts_before_filler() -> None:
    """Without a question, a message with a number and a name goes before talk."""
    talk = ["Well that is nice to hear from you, and it was so kind of them."] * 2
    found = rank(passages(*talk, "Send 12 boxes to Ms Keller by 3 May.", *talk), "").select(85)
    assert found.splitlines()[-1] == "user (2): Send 12 boxes to Ms Keller by 3 May."


def test_user_before_assistant() -> None:
    """Of two like messages the user's is chosen."""
    pair = [Passage(0, "assistant", "bring the green key", 5), Passage(1, "user", "bring the brown key", 5)]
    assert rank(pair, "").select(78) == "user (1): bring the brown key"


def test_written_in_order() -> None:
    """Messages stand in their order, a line each; what is left out between sentences shows."""
    few = "Alpha alpaca auburn acorn. Nothing much. Beta bronze badger basil."
    ranking = rank(passages(few, "Gamma golden garnet."), "alpha beta gamma")
    assert ranking.select(10_000) == f"user (0): {few}\nuser (1): Gamma golden garnet."
    lines = ranking.select(64 + 36).splitlines()
    assert lines == [
        "user (0): Alpha alpaca auburn acorn. ... Beta bronze badger basil.",
        "user (1): Gamma golden garnet.",
    ]


def test_core_holds_most_of_what_is_said() -> None:
    """The short form of a message holds two thirds of its content words, in fewer characters than the whole."""
    text = "It is. You know how it is. Order seven blue lamps. We could. Ship them to Oslo by Friday. Well, you know."
    found = Analysis(text)
    kept = " ".join(found.sentences[at] for at in found.core)
    assert len(content_words(kept) & content_words(text)) >= 2 / 3 * len(content_words(text))
    assert len(kept) < 0.7 * len(text)


def test_said_twice_kept_once() -> None:
    """A message that was said twice is kept once."""
    assert rank(passages("The code is 77.", "The code is 77."), "").select(1000).count("77") == 1


@given(st.lists(text, max_size=8), text, st.integers(0, 300))
def test_within_budget(texts: list[str], question: str, budget: int) -> None:
    """Whatever the texts, the selection is within the budget, made of their words, and the same every time."""
    found = rank(passages(*texts), question).within(budget, size)
    assert found == "" or size(found) <= budget
    assert found == rank(passages(*texts), question).within(budget, size)
    source = "".join(" ".join(texts).split())
    for line in re.split(r"(?m)^(?:user \(\d+\): |facts: )", found):
        for piece in re.split(r" \.\.\. |; ", line):
            assert "".join(piece.split()) in source


def test_uses_the_budget() -> None:
    """Where there is enough to say, at least nine tenths of the budget are used."""
    texts = [f"Point {n} is that lamp {n} costs {n * 3} euros." for n in range(400)]
    found = rank(passages(*texts), "").within(1000, size)
    assert 900 <= size(found) <= 1000
