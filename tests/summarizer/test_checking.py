"""A model's sentence stays only when its numbers, names and identifiers stand in the source, and some of its words."""

import pytest

from stream_summarizer.checking import check

SOURCE = (
    "user (0): I'm Anna Keller. The hall costs 1,250 euros; move it to 2026-03-15 at 14:30, use parse_date from v2.1.\n"
    "assistant (1): Done. Mr O'Brien's invoice is 3.50 euros."
)


@pytest.mark.parametrize(
    ("summary", "kept", "dropped"),
    [
        ("The user is Anna Keller.", "The user is Anna Keller.", 0),
        ("The user is Anna Miller.", "", 1),
        ("The hall costs 1250 euros.", "The hall costs 1250 euros.", 0),
        ("The hall costs 1,350 euros.", "", 1),
        ("The hall costs 250 euros.", "", 1),
        ("The user moved it to the 15 at 14:30.", "The user moved it to the 15 at 14:30.", 0),
        ("The user moved it to 16:30.", "", 1),
        ("The invoice is 3.50 euros.", "The invoice is 3.50 euros.", 0),
        ("The invoice is 50 euros.", "", 1),
        ("The user calls parse_date.", "The user calls parse_date.", 0),
        ("The user calls parse_time.", "", 1),
        ("The user has v2.1.", "The user has v2.1.", 0),
        ("The user has v2.2.", "", 1),
        ("O'Brien's invoice is done.", "O'Brien's invoice is done.", 0),
        ("Berlin is far. The user is Anna.", "The user is Anna.", 1),
        ("user (0): The hall is booked.\nuser (9): Paris is nice.", "user (0): The hall is booked.", 1),
        ("The user is moving the halls.", "The user is moving the halls.", 0),
        ("That sounds like a great plan!", "", 1),
        ("The assistant is too small to know the answer.", "", 1),
        ("", "", 0),
    ],
)
def test_check(summary: str, kept: str, dropped: int) -> None:
    """Each row: what a model wrote, what stays of it, how many sentences were dropped."""
    checked = check(summary, SOURCE)
    assert (checked.text, checked.dropped) == (kept, dropped)


def test_the_source_supports_itself() -> None:
    """Nothing of a source is dropped when it is checked against itself."""
    assert check(SOURCE, SOURCE).dropped == 0
