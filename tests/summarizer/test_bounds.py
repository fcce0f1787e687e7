"""Ten thousand messages, one megabyte: time stays bounded, whatever is remembered."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_summarizer.analysis import Analyses
from stream_summarizer.fitting import Fitted, Fitting
from stream_summarizer.giant import LEFT_OUT, shortened
from stream_summarizer.policy import Budget, as_json
from stream_summarizer.tokens import Counter, EstimatingCounter

from .building import conversation, long_talk, said, text

LIMIT = 2 * 1024 * 1024


def whole(messages: list[dict[str, Any]], counter: Counter, tokens: int) -> Fitted:
    fitting = Fitting(conversation(messages), counter, Budget(tokens + 1, 1))
    if fitting.over(fitting.minimum) > 0:
        shorter = fitting.shortened()
        assert shorter is not None
        fitting = shorter
    return fitting.extracted(lambda _key, make: make())


@pytest.mark.parametrize("kind", ["exact", "estimated"])
def test_ten_thousand_messages(kind: str, exact: Counter) -> None:
    """10,001 messages are fitted in seconds of this process, in order, within the budget."""
    counter = exact if kind == "exact" else EstimatingCounter(1600)
    messages = long_talk(5000, words=6)
    started = time.process_time()
    fitted = whole(messages, counter, 8000)
    assert time.process_time() - started < 60
    assert fitted.count.tokens <= 8000
    assert fitted.messages[-1].index == len(messages) - 1


@pytest.mark.parametrize("place", ["before the question", "the question", "a tool's result"])
def test_one_megabyte(place: str, exact: Counter) -> None:
    """One message of 1 MB is condensed, wherever it stands; what is asked at its end survives."""
    giant = "\n".join(f"Line {n} of the log says that all is well." for n in range(26_000))
    assert len(giant) > 1_000_000
    messages = [said("system", "Be brief."), said("user", giant), said("assistant", "Yes."), said("user", "Why?")]
    if place == "the question":
        messages = [said("system", "Be brief."), said("user", f"{giant}\nWhich line says ERROR?")]
    if place == "a tool's result":
        call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        asked = {"role": "assistant", "content": None, "tool_calls": [call]}
        messages = [said("user", "Read it."), asked, {"role": "tool", "tool_call_id": "c", "content": giant}]
    fitted = whole(messages, exact, 3000)
    assert fitted.count.tokens <= 3000
    assert [message.role for message in fitted.messages][-1] == messages[-1]["role"]
    if place == "the question":
        assert fitted.messages[-1].text.endswith("Which line says ERROR?")
    if place != "before the question":
        assert LEFT_OUT in fitted.messages[-1].text
        assert len(messages) - 1 in {at for span in fitted.spans for at in range(span.first, span.last + 1)}


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(text, min_size=1, max_size=40), tokens=st.integers(1, 400))
def test_a_shortened_message(parts: list[str], tokens: int) -> None:
    """Whatever the text: within its tokens or None, the same every time, and the rest of the message as it was."""
    counter = EstimatingCounter(1600)
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    (message,) = conversation([said("user", [{"type": "text", "text": "\n".join(parts)}, image])]).messages
    short = shortened(message, tokens, counter.text)
    if short is None:
        return
    assert counter.text(short.text) <= tokens
    assert short == shortened(message, tokens, counter.text)
    (again,) = conversation([said("user", "x")]).messages
    assert again.role == short.role
    assert short.media == message.media
    assert b"https://example.org/a.png" in short.raw


def test_the_same_every_time(exact: Counter) -> None:
    """With and without what is remembered of earlier turns the result is the same, byte for byte."""
    analyses = Analyses(LIMIT)
    messages = long_talk(20)
    for turns in (5, 10, 20):
        early = Fitting(conversation(long_talk(turns)), exact, Budget(1500, 1), analyses.of)
        early.extracted(lambda _key, make: make())
    remembered = Fitting(conversation(messages), exact, Budget(1500, 1), analyses.of)
    assert as_json(remembered.extracted(lambda _key, make: make()).messages) == as_json(
        whole(messages, exact, 1499).messages
    )
