"""A chat answer in Anthropic's form: the events in their order, however the engine cuts its chunks."""

from typing import Any

import orjson
import pytest

from stream_core.errors import RemoteError, StreamBroken, UpstreamRejected, UpstreamUnavailable
from stream_gateway.dialects.messages_answer import MessagesAnswer
from stream_gateway.dialects.messages_errors import error_event, error_reply

ID = "ab" * 16


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"model": "m-1", "choices": [choice]}) + b"\n\n"


def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": head.pop("name")} if "name" in head else {})}
    return {"tool_calls": [{"index": index, "function": function, **head}]}


COUNT = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}}
USAGE = b"data: " + orjson.dumps({"choices": [], "usage": COUNT}) + b"\n\n"
DONE = b"data: [DONE]\n\n"


def told(events: list[bytes], *, thinking: bool = True) -> list[dict[str, Any]]:
    """All events of a stream, one chunk at a time; each names its type twice."""
    answer = MessagesAnswer(ID, "asked", thinking=thinking)
    made = [event for one in events for event in answer.feed([one])] + answer.end()
    read = []
    for event in made:
        name, data = event.decode().removesuffix("\n\n").split("\n")
        read.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
    return read


def test_text() -> None:
    """Start, one block, reason with the usage, end."""
    events = told(
        [b": comment\n\n", chunk(content=""), chunk(content="a"), chunk(content="b"), chunk("stop"), USAGE, DONE]
    )
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (
        events[0]["message"].items() >= {"id": f"msg_{ID}", "model": "m-1", "content": [], "role": "assistant"}.items()
    )
    assert events[2]["delta"] == {"type": "text_delta", "text": "a"}
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[5]["usage"] == {
        "input_tokens": 7,
        "output_tokens": 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
    }


def test_thoughts_text_and_tools_are_blocks_in_their_order() -> None:
    """Thinking, text and two calls: four blocks, each closed before the next begins."""
    events = told(
        [
            chunk(reasoning_content="hm"),
            chunk(reasoning="m"),
            chunk(content="I look"),
            chunk(**call(0, "", id="c1", name="f")),
            chunk(**call(0, '{"a":')),
            chunk(**call(0, "1}")),
            chunk(**call(1, "{}", id="c2", name="g")),
            chunk("tool_calls"),
            DONE,
        ]
    )
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use", "tool_use"]
    assert [(block["id"], block["name"]) for block in blocks[2:]] == [("c1", "f"), ("c2", "g")]
    marks = [(event["type"][14:], event["index"]) for event in events if event["type"].startswith("content_block_st")]
    assert marks == [(word, index) for index in range(4) for word in ("start", "stop")]
    pieces = [event["delta"].get("partial_json") for event in events if event.get("index") == 2 and "delta" in event]
    assert "".join(pieces) == '{"a":1}'
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_thoughts_that_nobody_asked_for_are_left_out() -> None:
    """Without `thinking` there is only the text."""
    events = told([chunk(reasoning_content="hm"), chunk(content="a"), chunk("stop"), DONE], thinking=False)
    assert [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"] == ["text"]


@pytest.mark.parametrize(
    ("finish", "stop", "reason", "sequence"),
    [
        ("stop", None, "end_turn", None),
        ("stop", "END", "stop_sequence", "END"),
        ("stop", 128009, "end_turn", None),
        ("length", None, "max_tokens", None),
        ("content_filter", None, "refusal", None),
        ("tool_calls", None, "tool_use", None),
    ],
)
def test_reasons(finish: str, stop: Any, reason: str, sequence: str | None) -> None:
    """Each of the engine's reasons has Anthropic's name, streamed and whole."""
    choice = {"index": 0, "finish_reason": finish, "stop_reason": stop}
    event = b"data: " + orjson.dumps({"choices": [{**choice, "delta": {"content": "a"}}]}) + b"\n\n"
    expected = {"stop_reason": reason, "stop_sequence": sequence}
    assert told([event])[-2]["delta"] == expected
    body = orjson.dumps({"choices": [{**choice, "message": {"content": "a"}}]})
    assert orjson.loads(MessagesAnswer(ID, "m", thinking=True).whole(body)).items() >= expected.items()


def test_a_whole_answer() -> None:
    """Thoughts, text and calls become blocks; arguments are read."""
    message = {
        "content": "a",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    body = {"model": "m-1", "choices": [{"message": message, "finish_reason": "stop"}], "usage": COUNT}
    answer = orjson.loads(MessagesAnswer(ID, "m", thinking=True).whole(orjson.dumps(body)))
    assert answer["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
    ]
    assert (answer["stop_reason"], answer["usage"]["input_tokens"], answer["model"]) == ("tool_use", 7, "m-1")


@pytest.mark.parametrize("arguments", ["{nonsense", "[1]", "[" * 300 + "]" * 300])
def test_arguments_that_are_no_object_are_shown_as_they_are(arguments: str) -> None:
    """The client's tool decides what to make of them."""
    calls = [{"id": "c1", "function": {"name": "f", "arguments": arguments}}]
    body = orjson.dumps({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]})
    answer = orjson.loads(MessagesAnswer(ID, "m", thinking=True).whole(body))
    assert answer["content"][0]["input"] == {"_unparsed": arguments}


def test_what_breaks_a_stream() -> None:
    """An engine's error event, an event that is none, and an end without a reason are failures, no short answers."""
    for event in (b'data: {"error":{"message":"core died"}}\n\n', b"data: {nonsense\n\n"):
        with pytest.raises(StreamBroken):
            MessagesAnswer(ID, "m", thinking=True).feed([event])
    with pytest.raises(StreamBroken):
        told([chunk(content="a"), DONE])
    for body in (b"{}", b"nonsense", b'{"error":{"message":"x"}}'):
        with pytest.raises(RemoteError):
            MessagesAnswer(ID, "m", thinking=True).whole(body)


def test_errors_have_anthropics_form() -> None:
    """Type by status, the message, the request's id; our code beside them. An engine's own words are kept."""
    reply = error_reply(UpstreamUnavailable("nobody there"), ID)
    read = orjson.loads(reply.body)
    assert (reply.status, read["type"], read["request_id"]) == (503, "error", ID)
    assert read["error"] == {
        "type": "overloaded_error",
        "message": "nobody there",
        "code": "upstream_unavailable",
        "param": None,
    }
    rejected = UpstreamRejected(
        "x", status=400, body=b'{"error":{"message":"too long"}}', content_type="application/json"
    )
    assert orjson.loads(error_reply(rejected, ID).body)["error"] == {
        "type": "invalid_request_error",
        "message": "too long",
        "code": None,
        "param": None,
    }
    assert error_event(StreamBroken("lost"), ID).startswith(b'event: error\ndata: {"type":"error"')
    assert b"secret" not in error_reply(RuntimeError("secret"), ID).body
