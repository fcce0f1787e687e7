"""What always holds of a fitted conversation, whatever was said."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_summarizer.conversation import Conversation, Message, parse
from stream_summarizer.fitting import Fitted, Fitting
from stream_summarizer.policy import ACKNOWLEDGEMENT, MARK, Budget, as_json, indispensable
from stream_summarizer.tokens import Counter, EstimatingCounter

from .building import answering, calling, conversation, long_talk, said, talks

RESERVED = 100


def fit(talk: Conversation, counter: Counter, prompt_tokens: int) -> Fitted | None:
    """Fit by extraction; None when not even the minimum fits."""
    fitting = Fitting(talk, counter, Budget(prompt_tokens + RESERVED, RESERVED))
    return None if fitting.over(fitting.minimum) > 0 else fitting.extracted(lambda _key, make: make())


def originals(fitted: Fitted) -> list[Message]:
    return [message for message in fitted.messages if message.index >= 0]


def reread(messages: Sequence[Message]) -> Conversation:
    return parse(as_json(messages), max_messages=20_000)


@pytest.fixture(scope="module", params=["exact", "estimated"])
def counter(request: pytest.FixtureRequest, exact: Counter) -> Counter:
    return exact if request.param == "exact" else EstimatingCounter(1600)


@settings(deadline=None, max_examples=120)
@given(messages=talks(), share=st.floats(0.2, 0.95))
def test_invariants(counter: Counter, messages: list[dict[str, Any]], share: float) -> None:
    """Never over budget, order kept, what must stay is there byte for byte, calls with results, system first."""
    talk = conversation(messages)
    before = counter.prompt(talk.messages, b"")
    tokens = int(before.tokens * share)
    budget = Budget(tokens + RESERVED, RESERVED)
    fitted = fit(talk, counter, tokens)
    if fitted is None:
        keep = indispensable(talk)
        least = [m for unit, kept in zip(talk.units, keep, strict=True) if kept for m in talk.of(unit)]
        assert counter.prompt(least, b"").tokens > budget.tokens(exact=False)
        return
    again = reread(fitted.messages)
    counted = counter.prompt(again.messages, b"")
    assert counted == fitted.count
    assert counted.tokens <= budget.tokens(exact=counted.exact)

    kept = originals(fitted)
    assert [message.index for message in kept] == sorted({message.index for message in kept})
    assert all(message.raw == talk.messages[message.index].raw for message in kept)
    left_out = [index for span in fitted.spans for index in range(span.first, span.last + 1)]
    assert sorted([*left_out, *(message.index for message in kept)]) == list(range(len(messages)))

    for unit, must_stay in zip(talk.units, indispensable(talk), strict=True):
        there = {message.index for message in talk.of(unit)} & {message.index for message in kept}
        assert len(there) in {0, unit.last - unit.first + 1}
        assert there or not must_stay
    for unit in again.units:
        group = again.of(unit)
        answered = sorted(message.answers for message in group if message.role == "tool")
        assert answered == sorted(call.id for message in group for call in message.calls)

    inserted = [position for position, message in enumerate(fitted.messages) if message.index < 0]
    if inserted:
        leading = next(i for i, m in enumerate(messages) if m["role"] not in {"system", "developer"})
        assert inserted == list(range(leading, leading + len(inserted)))
        assert fitted.messages[leading].text.startswith(MARK)


@settings(deadline=None, max_examples=40)
@given(messages=talks(), share=st.floats(0.2, 0.95))
def test_stable(exact: Counter, messages: list[dict[str, Any]], share: float) -> None:
    """Fitting is deterministic, and what was fitted fits: the second time nothing changes."""
    talk = conversation(messages)
    tokens = int(exact.prompt(talk.messages, b"").tokens * share)
    first, second = fit(talk, exact, tokens), fit(talk, exact, tokens)
    if first is None or second is None:
        assert first is second
        return
    assert as_json(first.messages) == as_json(second.messages)
    again = Fitting(reread(first.messages), exact, Budget(tokens + RESERVED, RESERVED))
    assert again.over(again.before) <= 0


@settings(deadline=None, max_examples=40)
@given(turns=st.integers(3, 25), share=st.floats(0.2, 0.9))
def test_turns_alternate(strict: Counter, turns: int, share: float) -> None:
    """Where user and assistant took turns, they still do: a template that insists on it accepts every result."""
    talk = conversation(long_talk(turns))
    fitted = fit(talk, strict, int(strict.prompt(talk.messages, b"").tokens * share))
    assert fitted is None or fitted.count.exact


def test_the_fact_that_is_asked_for_survives(exact: Counter) -> None:
    """At a quarter of the tokens, the price from the fourth note is still there, and the summary names its turns."""
    talk = conversation(long_talk(20))
    fitted = fit(talk, exact, exact.prompt(talk.messages, b"").tokens // 4)
    assert fitted is not None
    summary = fitted.messages[1]
    assert summary.text.startswith(f"{MARK}1-")
    assert "the price of part 3 is 103 euros" in summary.text
    assert fitted.messages[2].text == ACKNOWLEDGEMENT or fitted.messages[2].role == "assistant"
    assert fitted.messages[-1].raw == talk.messages[-1].raw


def test_tools_in_the_condensed_part(exact: Counter) -> None:
    """A condensed tool call is told in words, with its result."""
    messages = [said("user", "How deep is it?"), calling("c"), answering("c", "The tide is 42 metres.")]
    messages += [said("assistant", "It is deep. " + "Long words follow here. " * 200), said("user", "Which tide?")]
    talk = conversation(messages)
    fitted = fit(talk, exact, 400)
    assert fitted is not None
    assert 'called look_up({"word": "tide"})' in fitted.messages[0].text
    assert "42 metres" in fitted.messages[0].text


def test_no_room_for_a_summary(exact: Counter) -> None:
    """When only what must stay fits, the rest is left out and said so."""
    talk = conversation([said("user", "One two three. " * 30), said("assistant", "Four."), said("user", "Five?")])
    bare = Fitting(talk, exact, Budget(10_000, 1)).minimum.tokens
    fitted = fit(talk, exact, bare + 3)
    assert fitted is not None
    assert not fitted.summarised
    assert [message.index for message in fitted.messages] == [2]
    assert json.loads(as_json(fitted.messages)) == [said("user", "Five?")]


def test_long_chain_of_tools(exact: Counter) -> None:
    """In one long turn of tool calls, the question and the last result stay, and earlier calls are condensed."""
    messages = [said("system", "s"), said("user", "Find the tide.")]
    for number in range(40):
        messages += [calling(f"c{number}"), answering(f"c{number}", f"Station {number} says {number * 7} metres. " * 4)]
    talk = conversation(messages)
    fitted = fit(talk, exact, exact.prompt(talk.messages, b"").tokens // 4)
    assert fitted is not None
    assert originals(fitted)[1].text == "Find the tide."
    assert originals(fitted)[-1].answers == "c39"


@pytest.mark.parametrize("kind", ["exact", "estimated"])
def test_bounded_time(kind: str, exact: Counter) -> None:
    """2,001 messages are fitted in seconds of this process, not minutes."""
    talk = conversation(long_talk(1000))
    counter = exact if kind == "exact" else EstimatingCounter(1600)
    started = time.process_time()
    fitted = fit(talk, counter, 8000)
    assert fitted is not None
    assert fitted.count.tokens <= 8000
    assert time.process_time() - started < 30


def test_one_huge_message(exact: Counter) -> None:
    """A quarter of a megabyte in an old message is condensed; the question behind it stays."""
    messages = [said("user", "All work and no play. " * 11_000), said("assistant", "Yes."), said("user", "Why?")]
    fitted = fit(conversation(messages), exact, 500)
    assert fitted is not None
    assert fitted.messages[-1].text == "Why?"
    assert fitted.count.tokens <= 500
