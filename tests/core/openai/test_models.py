"""The OpenAI request: what is refused and where, what routing learns, and that nothing is lost."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_core.errors import InvalidRequest
from stream_core.openai.models import MAX_DEPTH, chat_schema, parse_chat

USER = {"role": "user", "content": "hi"}
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
PIXEL = "data:image/png;base64,AAAA"


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "auto", "messages": [USER], **fields})


BAD: list[tuple[bytes, str | None, str]] = [
    (b"", None, "not valid JSON"),
    (b"{", None, "not valid JSON"),
    (b'{"a": NaN}', None, "not valid JSON"),
    (b'{"a": "\xff"}', None, "not valid JSON"),
    (b'{"a": "\\ud800"}', None, "not valid JSON"),
    (b"[]", None, "must be a JSON object, not an array"),
    (b"null", None, "must be a JSON object, not null"),
    (b'"x"', None, "must be a JSON object, not a string"),
    (b"7", None, "must be a JSON object, not a number"),
    (orjson.dumps({"messages": [USER]}), "model", "model is missing"),
    (body(model=7), "model", "expected a string, got an integer"),
    (body(model=""), "model", "length >= 1"),
    (orjson.dumps({"model": "auto"}), "messages", "messages is missing"),
    (body(messages=[]), "messages", "length >= 1"),
    (body(messages="hi"), "messages", "expected an array, got a string"),
    (body(messages=None), "messages", "expected an array, got null"),
    (body(messages=["hi"]), "messages[0]", "expected an object, got a string"),
    (body(messages=[USER, {"content": "x"}]), "messages[1].role", "is missing"),
    (
        body(messages=[USER, USER, {"role": "wizard", "content": "x"}]),
        "messages[2].role",
        "one of assistant, developer",
    ),
    (body(messages=[USER, {"role": 3, "content": "x"}]), "messages[1].role", "expected a string"),
    (body(messages=[{"role": "user"}]), "messages[0].content", "a user message needs"),
    (body(messages=[{"role": "system", "content": None}]), "messages[0].content", "a system message needs"),
    (body(messages=[{"role": "user", "content": 5}]), "messages[0].content", "a string or an array"),
    (body(messages=[{"role": "user", "content": [{"text": "x"}]}]), "messages[0].content[0].type", "is missing"),
    (body(stream="yes"), "stream", "expected true or false, got a string"),
    (body(stream=1), "stream", "expected true or false, got an integer"),
    (body(stream_options=True), "stream_options", "expected an object"),
    (body(max_tokens="10"), "max_tokens", "expected an integer, got a string"),
    (body(max_tokens=0), "max_tokens", "an integer >= 1"),
    (body(max_completion_tokens=-1), "max_completion_tokens", "an integer >= 1"),
    (body(n=0), "n", "an integer >= 1"),
    (body(n=129), "n", "an integer <= 128"),
    (body(temperature="hot"), "temperature", "expected a number, got a string"),
    (body(temperature=True), "temperature", "expected a number, got true or false"),
    (body(temperature=-1), "temperature", "a number >= 0"),
    (body(stop=3), "stop", "a string or an array"),
    (body(stop=["a", 3]), "stop[1]", "expected a string"),
    (body(tools={}), "tools", "expected an array, got an object"),
    (body(tools=[3]), "tools[0]", "expected an object"),
    (body(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", "is missing"),
    (body(tool_choice=3), "tool_choice", "a string or an object"),
    (body(response_format="json"), "response_format", "expected an object"),
    (body(logprobs="yes"), "logprobs", "expected true or false"),
    (body(seed="x"), "seed", "expected an integer"),
    (b'{"model":"auto","x":' + b"[" * 300 + b"]" * 300 + b"}", None, f"301 levels deep, at most {MAX_DEPTH}"),
]


@pytest.mark.parametrize(("data", "param", "words"), BAD)
def test_bad_requests_name_the_field(data: bytes, param: str | None, words: str) -> None:
    """Each kind of wrong request is refused, names its field and says what is expected."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(data)
    assert caught.value.param == param
    assert words in caught.value.message


def test_a_message_does_not_repeat_a_huge_value() -> None:
    """An error stays short when the wrong value is long."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(messages=[{"role": "x" * 100_000, "content": ""}]))
    assert len(caught.value.message) < 500


def test_unknown_fields_pass_on_untouched() -> None:
    """What the gateway does not know stays in the body as it came, at every level."""
    sent = {
        "model": "auto",
        "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}], "weight": 3}],
        "guided_choice": ["a", "b"],
        "chat_template_kwargs": {"enable_thinking": False},
        "seed": 2**63,
    }
    assert parse_chat(orjson.dumps(sent)).body == sent


def test_nulls_are_absent_fields() -> None:
    """Clients that send null for every unset field are understood."""
    chat = parse_chat(body(stream=None, max_tokens=None, n=None, tools=None, stop=None, response_format=None))
    assert (chat.stream, chat.max_output, chat.tool_count, chat.structured) == (False, None, 0, False)


def test_what_routing_learns() -> None:
    """Modalities, tools, structure, limits and the text of the tail are read; media are counted apart."""
    parts = [
        {"type": "text", "text": "what is"},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "text", "text": "this?"},
    ]
    chat = parse_chat(
        body(
            stream=True,
            messages=[{"role": "assistant", "tool_calls": [{"id": "1"}]}, {"role": "user", "content": parts}],
            tools=[{"type": "function", "function": {"name": "f"}}],
            response_format={"type": "json_schema", "json_schema": {"name": "x"}},
            max_tokens=5,
            max_completion_tokens=9,
        )
    )
    assert chat.stream
    assert chat.structured
    assert (chat.tool_count, chat.max_output) == (1, 9)
    assert chat.modalities == {"text", "image", "audio"}
    assert (chat.media_parts, chat.media_bytes) == (2, len(PIXEL) + 4)
    assert [(turn.role, turn.text) for turn in chat.tail(5)] == [("assistant", ""), ("user", "what is\nthis?")]
    assert [turn.role for turn in chat.tail(1)] == ["user"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["model", "messages", "stream", "tools", "n", "stop", "max_tokens", "response_format", "x"])


@patient
@given(st.dictionaries(fields, json_values))
def test_any_json_is_either_refused_or_kept_whole(value: dict[str, Any]) -> None:
    """No JSON object raises anything but `InvalidRequest`, and an accepted one is kept as it came."""
    data = orjson.dumps({"model": "auto", "messages": [USER], **value})
    try:
        kept = parse_chat(data).body
    except InvalidRequest:
        return
    assert kept == orjson.loads(data)


@patient
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    """Random bytes are an `InvalidRequest`, never another error."""
    with pytest.raises(InvalidRequest):
        parse_chat(data)


def test_the_schema_says_what_is_demanded() -> None:
    """The published schema comes from the same structs that refuse requests."""
    schema = chat_schema()
    assert set(schema["ChatBody"]["required"]) == {"model", "messages"}
    assert "developer" in schema["Message"]["properties"]["role"]["enum"]
