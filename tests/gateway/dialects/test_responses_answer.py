"""A chat answer in the form of the Responses API: the events in their order, and the object that they add up to."""

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from stream_core.errors import RemoteError, StreamBroken, UpstreamRejected
from stream_gateway.dialects.responses_answer import ResponsesAnswer

DONE = b"data: [DONE]\n\n"
COUNT = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
USAGE = b"data: " + orjson.dumps({"choices": [], "usage": COUNT}) + b"\n\n"


def frame() -> dict[str, Any]:
    asked = {"created_at": 1, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {"id": "resp_" + "ab" * 16, "object": "response", "model": "m", "output": [], **asked}


def chunk(finish: str | None = None, logprobs: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return b"data: " + orjson.dumps({"model": "m-1", "choices": [choice]}) + b"\n\n"


def call(index: int, arguments: str, **head: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": head.pop("name")} if "name" in head else {})}
    return {"tool_calls": [{"index": index, "function": function, **head}]}


def told(*events: bytes) -> list[dict[str, Any]]:
    """All events of a stream, one chunk at a time: named twice, numbered without a gap."""
    answer = ResponsesAnswer(frame())
    made = [event for one in events for event in answer.feed([one])] + answer.end()
    read = []
    for number, event in enumerate(made):
        name, data = event.decode().removesuffix("\n\n").split("\n")
        read.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
        assert read[-1]["sequence_number"] == number
    return read


def test_text() -> None:
    """Created, one item with one part, what it adds up to, completed with the usage."""
    events = told(chunk(content=""), chunk(content="a"), chunk(content="b"), chunk("stop"), USAGE, DONE)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[6]["text"] == "ab"
    final = Response.model_validate(events[-1]["response"])
    assert (final.status, final.output_text, final.model) == ("completed", "ab", "m-1")
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == 3
    assert (final.usage.total_tokens, final.usage.output_tokens_details.reasoning_tokens) == (14, 2)


def test_thoughts_text_refusal_and_tools_are_items_in_their_order() -> None:
    """Each item is closed before the next one begins, and each has its own deltas."""
    events = told(
        chunk(reasoning_content="hm"),
        chunk(content="I look"),
        chunk(refusal="no"),
        chunk(**call(0, "", id="c1", name="f")),
        chunk(**call(0, '{"a":1}')),
        chunk(**call(1, "{}", id="c2", name="g")),
        chunk("tool_calls"),
        DONE,
    )
    output = events[-1]["response"]["output"]
    kinds = ["reasoning", "message", "message", "function_call", "function_call"]
    assert [item["type"] for item in output] == kinds
    assert len({item["id"] for item in output}) == 5
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output[3:]] == [
        ("c1", "f", '{"a":1}'),
        ("c2", "g", "{}"),
    ]
    marks = [event["type"] for event in events if event["type"].startswith("response.output_item")]
    assert marks == ["response.output_item.added", "response.output_item.done"] * 5
    assert [item["status"] for item in output] == ["completed"] * 5
    Response.model_validate(events[-1]["response"])


def test_log_probabilities() -> None:
    """They stand in the delta and in the item."""
    one = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
    events = told(chunk(content="a", logprobs={"content": [one]}), chunk("stop"))
    assert next(event for event in events if event["type"] == "response.output_text.delta")["logprobs"] == [one]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [one]


@pytest.mark.parametrize(("finish", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, why: str) -> None:
    """The last event and the item say so."""
    last = told(chunk(content="a"), chunk(finish))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": why}
    assert last["response"]["output"][0]["status"] == "incomplete"


def test_a_whole_answer_is_what_the_events_add_up_to() -> None:
    """Thoughts, text and calls of one body give the same items."""
    message = {
        "content": "a",
        "reasoning": "hm",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    body = {"model": "m-1", "choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": COUNT}
    answer = Response.model_validate_json(ResponsesAnswer(frame()).whole(orjson.dumps(body)))
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert (answer.status, answer.output_text) == ("completed", "a")


def test_what_breaks_a_stream() -> None:
    """An error event and the failed response, numbered on; an end without a reason is a failure, too."""
    answer = ResponsesAnswer(frame())
    count = len(answer.feed([chunk(content="a")]))
    first, second = answer.broken(StreamBroken("lost"), "ab").decode().removesuffix("\n\n").split("\n\n")
    error, failed = (orjson.loads(event.partition("data: ")[2]) for event in (first, second))
    assert first.startswith("event: error\n")
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "stream_broken", count)
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "stream_broken", "message": "lost"}
    odd = UpstreamRejected("x", status=400, body=b"{nonsense", content_type="application/json")
    assert b'"code":"upstream_rejected"' in answer.broken(odd, "ab")
    with pytest.raises(StreamBroken):
        told(chunk(content="a"), DONE)
    with pytest.raises(StreamBroken):
        answer.feed([b'data: {"error":{"message":"core died"}}\n\n'])
    with pytest.raises(RemoteError):
        answer.whole(b"{}")
