"""Questions point at messages by their place."""

import pytest

from stream_summarizer.extract import Bearings, Passage, rank
from stream_summarizer.pointing import pointed_at

TALK = [
    ("system", "Be brief."),
    ("user", "Hello there."),
    ("assistant", "Hello."),
    ("user", "Subject: offer. Dear team, the roof costs a lot."),
    ("assistant", "It does."),
    ("user", "Is it blue?"),
    ("assistant", "It is green."),
    ("user", "My second mail says that it rains."),
    ("assistant", "So it does."),
    ("user", "Who paints it?"),
    ("assistant", "Nobody does."),
]


@pytest.mark.parametrize(
    ("question", "places"),
    [
        ("What did I write in my first message?", {1}),
        ("What was the price in my first mail?", {3}),
        ("And in my last email?", {7}),
        ("Answer the second question again.", {9}),
        ("What was my first question about?", {5}),
        ("Say your last answer again.", {10}),
        ("Your second reply was better.", {4}),
        ("Explain your last but one answer.", {8}),
        ("Repeat the third thing I said.", {5}),
        ("What did I ask you first?", {1}),
        ("What was it at the beginning?", {1, 2, 3, 4}),
        ("What did I want originally?", {1, 2, 3, 4}),
        ("My 9th message?", set()),
        ("Who was the first king of Norway?", set()),
        ("What happens at the beginning of the film?", set()),
        ("What was said at the beginning of our conversation?", {1, 2, 3, 4}),
        ("When is the first train?", set()),
        ("", set()),
    ],
)
def test_pointed_at(question: str, places: set[int]) -> None:
    """Each row: a question and the positions that it points at."""
    roles, texts = zip(*TALK, strict=True)
    assert pointed_at(question, roles, texts) == places


def test_what_is_pointed_at_survives() -> None:
    """A message that the question points at is there although it shares no word with it and others do."""
    said = [f"We looked at the answer and the question of mail number {n} in the office." for n in range(40)]
    said[0] = "Our old boiler makes a humming noise at night, and nobody in the house knows whom to call for that."
    passages = [Passage(at, "user", text, len(text) // 4 + 1) for at, text in enumerate(said)]
    pointed = pointed_at("What was my first message about?", ["user"] * 40, said)
    question = "What was my first message about?"
    assert said[0] in rank(passages, question, bearings=Bearings({}, pointed)).select(120)
    assert said[0] not in rank(passages, question).select(120)
