"""What stays and what is condensed, as tables."""

import json
from typing import Any

import pytest

from stream_summarizer.policy import (
    ACKNOWLEDGEMENT,
    MARK,
    Budget,
    Plan,
    Span,
    as_json,
    assemble,
    condensed_spans,
    in_words,
    indispensable,
    plan,
)

from .building import answering, calling, conversation, said

S, U, A = said("system", "s"), said("user", "u"), said("assistant", "a")
TOOLS = [calling("c"), answering("c")]


def row(keep: str) -> tuple[bool, ...]:
    return tuple(mark == "x" for mark in keep)


@pytest.mark.parametrize(
    ("budget", "exact", "tokens"),
    [
        (Budget(8192, 1024, 0.02), True, 7168),
        (Budget(8192, 1024, 0.02), False, 6973),
        (Budget(1000, 900, 0.5), False, 0),
    ],
)
def test_budget(budget: Budget, exact: bool, tokens: int) -> None:
    """Window less answer; less a margin where counts are estimates; never below zero."""
    assert budget.tokens(exact=exact) == tokens


@pytest.mark.parametrize(
    ("messages", "keep"),
    [
        ([U], "x"),
        ([S, U, A, U], "x..x"),
        ([S, said("developer", "d"), U, A, U], "xx..x"),
        ([U, A, S, U], "...x"),  # an instruction in between is kept while it fits, not always
        ([U, A, U, *TOOLS], "..xx"),  # the question, and the result that waits for an answer
        ([U, A, U, *TOOLS, *TOOLS], "..x.x"),
        ([U, A], "xx"),  # a started answer
        ([A, A], ".x"),
    ],
)
def test_indispensable(messages: list[dict[str, Any]], keep: str) -> None:
    """Each row: a conversation, and per unit whether it always stays."""
    assert indispensable(conversation(messages)) == row(keep)


@pytest.mark.parametrize(
    ("messages", "sizes", "budget", "keep", "summary"),
    [
        # 80 are free, 16 of them for the latest: one of 10; the summary has 70.
        ([S, *[U, A] * 4, U], [10] * 10, 100, "x.......xx", 70),
        # One that is too large ends the tail, even if an older one would fit.
        ([S, U, A, U, A, U], [10, 5, 5, 5, 50, 10], 100, "x....x", 80),
        # A late instruction goes before the latest turns.
        ([S, U, A, S, U, A, U, A, U], [10, 10, 10, 10, 10, 10, 10, 10, 10], 140, "x..x...xx", 100),
        # What must stay takes everything.
        ([S, U, A, U], [50, 10, 10, 50], 100, "x..x", 0),
    ],
)
def test_plan(messages: list[dict[str, Any]], sizes: list[int], budget: int, keep: str, summary: int) -> None:
    """Each row: units with their sizes and a budget; what stays, and what the summary may take."""
    assert plan(conversation(messages), sizes, 0, budget) == Plan(row(keep), summary)


def test_border_moves_in_steps() -> None:
    """While a conversation grows turn by turn, what is condensed stays the same for several turns."""
    seen = []
    for turns in range(40, 60):
        talk = conversation([S, *[U, A] * turns, U])
        chosen = plan(talk, [10] * len(talk.units), 0, 400)
        seen.append(condensed_spans(talk, chosen))
    assert len(set(seen)) <= len(seen) // 2
    assert [spans[0].first for spans in seen] == [1] * len(seen)


@pytest.mark.parametrize(
    ("messages", "keep", "roles", "spans"),
    [
        ([S, U, A, U], "x..x", ["system", "+user", "+assistant", "user"], [Span(1, 2)]),
        ([S, U, A, U], "x.xx", ["system", "+user", "assistant", "user"], [Span(1, 1)]),
        ([U, A, U, *TOOLS], "...x", ["+user", "assistant", "tool"], [Span(0, 2)]),
        ([U, A, S, U, A, U], "..x..x", ["+user", "+assistant", "system", "user"], [Span(0, 1), Span(3, 4)]),
        ([S, U], "xx", ["system", "user"], []),
    ],
)
def test_assemble(messages: list[dict[str, Any]], keep: str, roles: list[str], spans: list[Span]) -> None:
    """Each row: what stays, and the roles that come out (+ marks what was put in), so that turns still alternate."""
    talk = conversation(messages)
    chosen = Plan(row(keep), 0)
    built = assemble(talk, chosen, "the body")
    assert [("+" if message.index < 0 else "") + message.role for message in built] == roles
    assert list(condensed_spans(talk, chosen)) == spans
    written = json.loads(as_json(built))
    if spans:
        summary = next(message for message in written if message["content"].startswith(MARK))
        assert summary["content"] == f"{MARK}{in_words(spans)}]\nthe body"
        assert ("+assistant" in roles) == any(message["content"] == ACKNOWLEDGEMENT for message in written)


def test_assemble_without_room() -> None:
    """Without a body nothing is put in."""
    talk = conversation([S, U, A, U])
    assert [message.index for message in assemble(talk, Plan(row("x..x"), 0), None)] == [0, 3]


def test_in_words() -> None:
    """Ranges are written with their indices in the request; many are shortened, since they go into a header."""
    assert in_words([Span(1, 16), Span(18, 18)]) == "1-16, 18"
    assert in_words([Span(n, n) for n in range(0, 100, 2)]) == "0, 2, 4, 6, 8, ..., 98"
