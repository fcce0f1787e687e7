"""Reading the text of an event by the form of an earlier one: the same text as read as JSON, or none."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_core.openai.sse import data_of
from stream_gateway.backends.continued_chunks import Chunk, read_chunk
from stream_gateway.backends.continued_pattern import Pattern, learn
from stream_gateway.backends.continued_state import Continuation


def event(text: str | None, *, finish: str | None = None, ascii_only: bool = False, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "x", "model": "m", "choices": [choice]} | more
    return f"data: {json.dumps(chunk, ensure_ascii=ascii_only)}\n\n".encode("utf-8", "surrogatepass")


def read(data: bytes) -> Chunk:
    chunk = read_chunk(data_of(data) or b"")
    assert chunk is not None
    return chunk


def taught(data: bytes) -> Pattern:
    pattern = learn(data, read(data))
    assert pattern is not None
    return pattern


@pytest.mark.parametrize(
    "text", [" next", "\n", 'say "x"', "back\\slash", "\u00e9\u4e16\U0001f30d", "\x7f", " ", "}]}"]
)
@pytest.mark.parametrize("ascii_only", [False, True], ids=["utf-8", "escaped"])
def test_a_text_of_the_form(text, ascii_only):
    """Any text is read, however it is written."""
    assert taught(event("first")).text_of(event(text, ascii_only=ascii_only)) == text


@pytest.mark.parametrize(
    "other",
    [
        event(""),
        event(None),
        event("x", finish="stop"),
        event("x", id="y"),
        event("x", usage={"prompt_tokens": 1}),
        event("first")[:-1],
        event("first")[6:],
        b" " + event("first"),
        b'"first"\n\n',
        b"data: [DONE]\n\n",
        b": ping\n\n",
        b"",
        event("a").replace(b'"a"', b'"a", "role": "user"'),
        event("a").replace(b'"a"', b'"a'),
        event("a").replace(b'"a"', b'"\x01"'),
        event("a").replace(b'"a"', b'"\xff"'),
        event("a").replace(b'"a"', b'"\\ud800"'),
        event("a").replace(b'"a"', b"1"),
    ],
)
def test_another_form(other):
    """What is not of the form, or not valid, is left to who reads JSON."""
    assert taught(event("first")).text_of(other) == ""


@pytest.mark.parametrize(
    "lesson",
    [
        event(""),
        event(None),
        event("x", finish="stop"),
        event("m"),  # the model is called so: where the text lies is not certain
        event("id"),
        event("x", usage={"prompt_tokens": 1}),
        event("\u00e9", ascii_only=True),
        event("x").replace(b'"index": 0', b'"index": 1'),
        event("x").replace(b'"content": "x"', b'"content": "x", "reasoning": "x"'),
        event("a").replace(b'"a"', b'"a", "content": "b"'),
    ],
)
def test_nothing_to_be_learnt(lesson):
    """A form is taken from an event that says a text alone, in a place that is certain."""
    pattern = learn(lesson, read(lesson))
    assert pattern is None or pattern.text_of(event("other")) in {"", "other"}
    assert pattern is None or pattern.text_of(lesson) == read(lesson).choices[0].delta.content


def test_a_truncated_form_overlaps():
    """Where the form's end would begin within its start, nothing is read."""
    assert Pattern(b'{"a":"a":', b'"a":}').text_of(b'{"a":"a":}') == ""


texts = st.text(max_size=6) | st.sampled_from(["m", "x", "id", "\\", '"', "data: ", "\n\n"])
events = st.builds(
    event, texts | st.none(), finish=st.sampled_from([None, None, None, "stop"]), ascii_only=st.booleans(),
    id=st.sampled_from(["x", "x", "y"]),
) | st.sampled_from([b": ping\n\n", b"data: [DONE]\n\n", b"data: {}\n\n", b'"x"\n\n'])  # fmt: skip


@given(st.lists(events, max_size=12))
@example([event("a"), event("b"), b'"x"\n\n', event("c")])
def test_an_answer_is_read_alike(stream):
    """With the forms learnt and without, an answer says the same and stands the same."""

    def followed(*, lessons: int) -> tuple[Any, ...]:
        answer = Continuation()
        answer._lessons = lessons
        for one in stream:
            answer.feed([one])
        return answer.given, answer.deltas, answer.state, answer.textual, answer.prompt

    assert followed(lessons=4) == followed(lessons=0)
