"""What was taken back is found, stands only beside what takes it back, and is no fact any more."""

import pytest

from stream_summarizer.analysis import Analysis
from stream_summarizer.corrections import corrections
from stream_summarizer.extract import Bearings, Passage, rank

FILLER = "We spoke about the garden for a while, and it was pleasant there."


def found(*said: str) -> dict[int, tuple[int, set[str]]]:
    """Corrections in a talk of user messages: {older: (newer, values that no longer hold)}."""
    texts = [Analysis(text) for text in said]
    return {old: (new.by, set(new.stale)) for old, new in corrections(["user"] * len(said), texts).items()}


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("The rent is $1,340 a month.", "Actually, the rent is $1,400 a month.", "$1,340"),
        ("The meeting is on Monday.", "Please change Monday to Friday.", "monday"),
        ("Book the flight for May 2.", "May 3, not May 2, please.", "may 2"),
        ("Let us meet at 9:20.", "No, at 10:40 instead of 9:20.", "9:20"),
        ("My dog is called Rex.", "My dog is called Max.", "rex"),
        ("We are moving to Utrecht in June.", "Sorry, I meant we are moving to Leiden.", "utrecht"),
        (
            "I aim for 10 books in this reading challenge.",
            "I extended my reading challenge goal to 12 books.",
            "10 books",
        ),
        ("The first sprint has a deadline of April 1.", "I wrote the new sprint deadline of April 5 down.", "april 1"),
    ],
)
def test_what_is_taken_back(old: str, new: str, stale: str) -> None:
    """Each row: a statement, another one later, and the value that no longer holds, with other talk between them."""
    assert found(old, FILLER, new) == {0: (2, {stale})}


def test_right_after_it() -> None:
    """A correction that shares no word with what it corrects is of the message before it."""
    assert found(FILLER, "Book it for 1:45 in the afternoon.", "No, change that to 16:45.") == {
        1: (2, {"1:45 in the afternoon"})
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The rent is $1,340 a month.", "Should I change it to $1,400?"),
        ("The rent is $1,340 a month.", "Actually, the flight costs $200."),
        ("Tell me about bread, part 3.", "Tell me about bread, part 4."),
        ("The lamp 3 is in Oslo.", "The lamp 4 is in Bergen."),
        ("The price of part 3 is 103 euros.", "The price of part 4 is 104 euros."),
        ("I bought 8 chairs.", "The shop has a new offer of 12 lamps."),
        ("The rent is $1,340 a month.", "Actually, the rent is $1,340 a month."),
        ("Anna lives in Oslo.", "No idea."),
    ],
)
def test_what_is_not(old: str, new: str) -> None:
    """Each row: two messages that don't contradict each other."""
    assert found(old, FILLER, new) == {}


def test_an_assistant_corrects_nobody() -> None:
    """What an assistant says takes nothing back."""
    texts = [Analysis("The rent is $1,340 a month."), Analysis("Actually, the rent is $1,400 a month.")]
    assert corrections(["user", "assistant"], texts) == {}


@pytest.mark.parametrize("tokens", range(10, 260, 6))
def test_the_later_one_wins(tokens: int) -> None:
    """In any budget the older value never stands without the newer one, and beside it with a note."""
    said = [FILLER] * 30
    said[4] = "The rent of the flat is $1,340 a month, and the house is quiet."
    said[21] = "By the way, the rent of the flat is $1,400 a month, since the owner wrote to me about it yesterday."
    passages = [Passage(at, "user", text, len(text) // 4 + 1) for at, text in enumerate(said)]
    texts = [Analysis(text) for text in said]
    bearings = Bearings(corrections(["user"] * 30, texts), frozenset())
    assert set(bearings.corrected) == {4}
    text = rank(passages, "How much is the rent?", Analysis, bearings).select(tokens)
    assert "$1,340" not in text or "$1,400" in text
    assert ("$1,340" in text) <= ("[corrected in 21]" in text)
    assert "$1,400" in text or tokens < 16


def test_known_from_what_stays() -> None:
    """What a message that stays word for word takes back is no fact in the summary of the others."""
    said = [
        "The rent of the flat is $1,340 a month.",
        *[FILLER] * 6,
        "Actually, the rent of the flat is $1,400 a month.",
    ]
    bearings = Bearings(corrections(["user"] * 8, [Analysis(text) for text in said]), frozenset())
    passages = [Passage(at, "user", text, len(text) // 4 + 1) for at, text in enumerate(said[:-1])]
    assert "$1,340" in rank(passages, "How much is the rent?").select(12)
    assert "$1,340" not in rank(passages, "How much is the rent?", Analysis, bearings).select(12)
    assert "$1,340 a month. [corrected in 7]" in rank(passages, "How much is the rent?", Analysis, bearings).select(150)
