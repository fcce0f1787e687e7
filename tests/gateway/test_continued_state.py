"""The state machine of a continued answer: the engine's events in, the client's events out."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_core.openai.sse import DONE
from stream_gateway.backends.continued_state import Continuation, State


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, **more: Any) -> bytes:
    """One chunk; without a delta it has no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "second", "object": "chat.completion.chunk", "created": 2, "model": "b", "choices": choices}
    return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"


def first(delta: dict[str, Any], **more: Any) -> bytes:
    return event(delta, **({"id": "first", "created": 1, "model": "a"} | more))


def usage(prompt: int, completion: int, **more: Any) -> bytes:
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event(usage=tokens | more)


def texts(*contents: str) -> list[bytes]:
    return [event({"content": content}) for content in contents]


def said(events: list[bytes]) -> str:
    chunks = [json.loads(data[6:]) for data in events if data != DONE]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


ROLE = {"role": "assistant", "content": ""}
BEGUN = [first(ROLE), first({"content": "one"}), first({"content": " two"})]
TOOL = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}


def broken(*, echo: bool | None = False, prompt: int | None = None) -> Continuation:
    """An answer that said "one two" and then lost its worker."""
    text = Continuation()
    assert text.feed(BEGUN) is BEGUN
    text.go_on(prompt=prompt, echo=echo)
    return text


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (BEGUN, State.FOLLOWING),
        ([b": ping\n\n", *BEGUN], State.FOLLOWING),
        ([first({"content": "x", "annotations": [], "function_call": None})], State.FOLLOWING),
        ([first({"role": "assistant", "content": None})], State.FOLLOWING),
        ([*BEGUN, first({}, finish="stop")], State.FINISHED),
        ([*BEGUN, first({}, finish="stop"), usage(5, 2)], State.FINISHED),
        ([*BEGUN, first({}, finish="stop"), DONE], State.COMPLETE),
        ([*BEGUN, first(TOOL)], State.REFUSED),
        ([*BEGUN, first(TOOL), first({}, finish="tool_calls")], State.FINISHED),
        ([first({"reasoning_content": "hm"})], State.REFUSED),
        ([first({"content": "x", "thinking": "hm"})], State.REFUSED),
        ([b'data: {"error": {"message": "out of memory"}}\n\n'], State.REFUSED),
        ([event({"content": "x"}, error={"message": "x"})], State.REFUSED),
        ([b"data: spaced\n\n"], State.REFUSED),
        ([b'data: {"choices": [{"index": 1, "delta": {"content": "x"}}]}\n\n'], State.REFUSED),
        ([b'data: {"choices": [{"index": 0, "delta": {"content": "a piece of a very long ev'], State.REFUSED),
    ],
)
def test_first_stream(events, state):
    """The first stream passes as the very same bytes, whatever it holds; what it held is known."""
    text = Continuation()
    assert text.feed(events) is events
    assert text.state is state
    assert text.textual is (state is not State.REFUSED and TOOL not in [json_delta(data) for data in events])


def json_delta(data: bytes) -> Any:
    try:
        return json.loads(data[6:])["choices"][0]["delta"]
    except (ValueError, KeyError, IndexError):
        return None


def test_text_and_prompt_are_collected():
    """What was sent is known as text, by chunks, and by an engine that tells its usage all the time."""
    text = Continuation()
    text.feed([*BEGUN, first({"content": "é\n"}, usage={"prompt_tokens": 7, "completion_tokens": 3})])
    assert (text.given, text.deltas, text.prompt, text.usage_sent) == ("one twoé\n", 3, 7, False)


def test_continuation_is_one_stream():
    """Chunks of the second worker carry the first's names, no second role, and the mark where the answer ends."""
    text = broken(prompt=5)
    out = text.feed([event(ROLE), *texts(" three"), event({}, finish="stop", odd=[1]), usage(7, 2), DONE])
    chunks = [json.loads(data[6:]) for data in out[:-1]]
    assert out[-1] == DONE
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks} == {("first", 1, "a")}
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [{"content": " three"}, {}]
    assert [chunk.get("stream") for chunk in chunks] == [None, {"continued": 1}, {"continued": 1}]
    assert chunks[1]["odd"] == [1]
    assert chunks[2]["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    assert text.state is State.COMPLETE
    assert text.usage_sent


def test_role_is_said_when_it_was_not():
    """A worker that died before its first chunk leaves the role to its successor."""
    text = Continuation()
    text.go_on(prompt=None, echo=False)
    assert said(out := text.feed([event(ROLE), *texts("one")])) == "one"
    assert b'"role":"assistant"' in out[0]
    assert b'"id":"second"' in out[1]


def test_usage_of_an_answer_begun_anew():
    """Where no text was given, the engine's usage is the answer's own."""
    text = Continuation()
    text.feed([first(ROLE)])
    text.go_on(prompt=None, echo=None)
    (chunk,) = text.feed([*texts(""), usage(5, 2)])
    assert json.loads(chunk[6:])["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_unmeasured_usage_is_marked():
    """Without a measurement the total is right, the parts are counted by chunks, and the metadata says so."""
    out = broken().feed([*texts(" three"), event({}, finish="stop"), usage(9, 2)])
    chunk = json.loads(out[-1][6:])
    assert chunk["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert chunk["stream"] == {"continued": 1, "usage": "estimated"}


def test_cached_tokens_are_at_most_the_prompt():
    """What the second engine had in its cache may be more than the caller's prompt; usage stays consistent."""
    (chunk,) = broken(prompt=5).feed([usage(7, 2, prompt_tokens_details={"cached_tokens": 7})])
    assert json.loads(chunk[6:])["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}


@pytest.mark.parametrize(
    ("echo", "events", "expected", "state"),
    [
        (None, texts(" three"), " three", State.GOING_ON),
        (None, texts("one"), "", State.MATCHING),
        (None, texts("one", " tiger"), "one tiger", State.GOING_ON),
        (None, texts("one", " two"), "", State.DOUBT),
        (None, texts("one two three", " four"), "", State.DOUBT),
        (True, texts("one two three", " four"), " three four", State.GOING_ON),
        (True, texts("one", " two", " three"), " three", State.GOING_ON),
        (True, texts(" three"), " three", State.GOING_ON),
        (False, texts("one", " two"), "one two", State.GOING_ON),
        (None, [*texts("one"), event({}, finish="stop")], "one", State.FINISHED),
        (None, [*texts("one"), DONE], "one", State.COMPLETE),
        (None, [event(ROLE), b": ping\n\n"], None, State.MATCHING),
        (True, [*texts("one two"), event({}, finish="stop")], "", State.FINISHED),
        (None, [*texts("one"), event(TOOL)], "", State.MATCHING),
        (False, [event(TOOL)], "", State.REFUSED),
        (None, [*texts("one"), b"data: odd\n\n"], None, State.REFUSED),
    ],
)
def test_given_text_again(echo, events, expected, state):
    """Text that begins like the given is held back until it is told; other text passes at once."""
    text = broken(echo=echo)
    out = text.feed(events)
    if expected is not None:
        assert said([data for data in out if data.startswith(b"data: {")]) == expected
    assert text.state is state


@pytest.mark.parametrize(("echo", "expected"), [(True, " three four"), (False, "one two three four")])
def test_doubt_is_settled(echo, expected):
    """An echo is cut off; a model that says the same again is heard. What came meanwhile follows in order."""
    text = broken(echo=None)
    assert text.feed([*texts("one two", " three", " four"), event({}, finish="stop"), DONE]) == []
    out = text.settle(echo=echo)
    assert said(out) == expected
    assert out[-1] == DONE
    assert text.state is State.COMPLETE


def test_logprobs_of_a_cut_chunk():
    """Of a chunk that holds the end of the echo and new text, the log-probabilities of the new text stay."""
    tokens = [{"token": token, "logprob": -0.5} for token in (" two", " three")]
    text = broken(echo=True)
    both = {"choices": [{"index": 0, "delta": {"content": "one two three"}, "logprobs": {"content": tokens}}]}
    (chunk,) = text.feed([event({}, **both)])
    assert json.loads(chunk[6:])["choices"][0]["logprobs"]["content"] == [{"token": " three", "logprob": -0.5}]


def test_logprobs_that_do_not_fit_are_marked():
    """Where the tokens do not spell the rest, the metadata says that log-probabilities are incomplete."""
    text = broken(echo=True)
    both = {"choices": [{"index": 0, "delta": {"content": "one two three"}, "logprobs": {"content": [{"token": "?"}]}}]}
    out = text.feed([event({}, **both), event({}, finish="stop")])
    assert json.loads(out[-1][6:])["stream"] == {"continued": 1, "logprobs": "incomplete"}


def test_two_deaths():
    """Text held back when the second worker dies was never sent: the third is given what the client has."""
    text = broken(echo=True)
    text.feed(texts("one two three", " four"))
    assert text.given == "one two three four"
    text.go_on(prompt=5, echo=None)
    assert text.feed(texts("one two")) == []
    assert text.given == "one two three four"
    text.go_on(prompt=None, echo=None)
    out = text.feed([*texts(" five"), event({}, finish="stop"), usage(9, 2)])
    assert said(out) == " five"
    assert json.loads(out[-1][6:])["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    assert json.loads(out[-1][6:])["stream"] == {"continued": 3}


def test_only_the_end_is_missing():
    """An answer whose text is out is completed with finish_reason, usage and end in the first stream's name."""
    text = broken(prompt=5)
    out = text.ending(finish="length", total=7)
    chunks = [json.loads(data[6:]) for data in out[:-1]]
    assert out[-1] == DONE
    assert [chunk["id"] for chunk in chunks] == ["first", "first"]
    assert chunks[0]["choices"][0]["finish_reason"] == "length"
    assert [chunk["stream"] for chunk in chunks] == [{"continued": 2}] * 2
    assert chunks[1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert Continuation().ending() == [DONE]


@pytest.mark.parametrize("last", [first({}, finish="stop"), first(TOOL), DONE])
def test_illegal_steps_change_nothing(last):
    """An answer that is finished, or can't go on, does not go on; a doubt that is not there is not settled."""
    text = Continuation()
    text.feed([*BEGUN, last])
    before = text.state
    with pytest.raises(ValueError, match="does not go on"):
        text.go_on(prompt=None, echo=None)
    with pytest.raises(ValueError, match="no doubt"):
        text.settle(echo=True)
    assert text.state is before


SOME_TEXT = st.text(alphabet="ab é\n", max_size=12)


def cut(text: str, places: list[int]) -> list[str]:
    """Cut a text at these places."""
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(borders)]


@settings(max_examples=200, deadline=None)
@given(
    given=st.text(alphabet="ab é\n", min_size=1, max_size=12),
    rest=SOME_TEXT,
    places=st.lists(st.integers(0, 30), max_size=8),
    deaths=st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=2),
    per_batch=st.integers(1, 4),
)
def test_no_character_is_lost_or_doubled(given, rest, places, deaths, per_batch):
    """However the echo and the text are cut into events, and whoever dies where, the client reads the text once."""
    whole = given + rest
    text = Continuation()
    sent = said(text.feed([first({"content": given})]))
    for echo, place in [*deaths, (True, 10**6)]:
        text.go_on(prompt=5, echo=None)
        stream = (sent if echo else "") + whole[len(sent) :]
        events = texts(*cut(stream, places))[: place + 1]
        for start in range(0, len(events), per_batch):
            out = text.feed(events[start : start + per_batch])
            if text.state is State.DOUBT:
                out += text.settle(echo=echo)
            sent += said(out)
        assert text.given == sent
        assert whole.startswith(sent)
    assert sent == whole
