"""Anthropic's request as a chat request: the table of `messages_request`, row by row, and what is refused."""

from typing import Any

import orjson
import pytest

from stream_core.errors import InvalidRequest, Unsupported
from stream_gateway.dialects.messages_request import parse_messages

HI: dict[str, Any] = {"role": "user", "content": "hi"}
TOOL: dict[str, Any] = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
PNG: dict[str, Any] = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
PART: dict[str, Any] = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "auto", "max_tokens": 9, "messages": [HI], **fields})


def turns(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    later = [HI] if role == "assistant" else []
    return {"messages": [{"role": role, "content": list(blocks)}, *later]}


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"model": "auto", "max_tokens": 9, "messages": [HI]}),
    ({"system": "be brief"}, {"messages": [{"role": "system", "content": "be brief"}, HI]}),
    (
        {
            "system": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ]
        },
        {"messages": [{"role": "system", "content": "a\n\nb"}, HI]},
    ),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 7}, {"temperature": 0.5, "top_p": 0.9, "top_k": 7}),
    ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
    ({"metadata": {"user_id": "u"}}, {"user": "u"}),
    ({"own": {"a": 1}}, {"own": {"a": 1}}),
    (
        {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "description": "d"}}
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
    ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, {"reasoning_effort": "medium"}),
    ({"thinking": {"type": "enabled", "budget_tokens": 32_000}}, {"reasoning_effort": "high"}),
    ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "high"}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
            }
        },
    ),
    ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, {"model": "auto"}),
]


@pytest.mark.parametrize(("sent", "expected"), FIELDS)
def test_fields(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field has its place in the chat request."""
    assert parse_messages(body(**sent)).chat.body.items() >= expected.items()


BLOCKS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    (
        turns({"type": "text", "text": "a"}, {"type": "text", "text": "b"}),
        [{"role": "user", "content": "a\n\nb"}],
    ),
    (
        turns({"type": "text", "text": "a"}, PNG),
        [{"role": "user", "content": [{"type": "text", "text": "a"}, PART]}],
    ),
    (
        turns({"type": "image", "source": {"type": "url", "url": "https://x/y"}}),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}],
    ),
    (
        turns({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}),
        [{"role": "user", "content": "d"}],
    ),
    (
        turns(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I look"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            role="assistant",
        ),
        [
            {
                "role": "assistant",
                "content": "I look",
                "reasoning_content": "hm",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            HI,
        ],
    ),
    (
        turns(
            {"type": "tool_result", "tool_use_id": "t1", "content": "42"},
            {"type": "tool_result", "tool_use_id": "t2", "is_error": True, "content": [{"type": "text", "text": "no"}]},
            {"type": "text", "text": "go on"},
        ),
        [
            {"role": "tool", "tool_call_id": "t1", "content": "42"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: no"},
            {"role": "user", "content": "go on"},
        ],
    ),
    (
        turns({"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "seen"}, PNG]}),
        [
            {"role": "tool", "tool_call_id": "t1", "content": "seen\n\n[its images follow]"},
            {"role": "user", "content": [PART]},
        ],
    ),
    (turns({"type": "tool_result", "tool_use_id": "t1"}), [{"role": "tool", "tool_call_id": "t1", "content": ""}]),
]


@pytest.mark.parametrize(("sent", "expected"), BLOCKS)
def test_blocks(sent: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    """Each kind of block becomes the messages and parts that say the same."""
    assert parse_messages(body(**sent)).chat.body["messages"] == expected


WRONG: list[tuple[dict[str, Any], str, type[InvalidRequest]]] = [
    ({"max_tokens": None}, "max_tokens", InvalidRequest),
    ({"max_tokens": 0}, "max_tokens", InvalidRequest),
    ({"messages": []}, "messages", InvalidRequest),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", InvalidRequest),
    ({"temperature": 1.5}, "temperature", InvalidRequest),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens", InvalidRequest),
    ({"output_config": {"effort": "huge"}}, "output_config.effort", InvalidRequest),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format", InvalidRequest),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema", InvalidRequest),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice", InvalidRequest),
    (turns({"type": "text"}), "messages[0].content[0].text", InvalidRequest),
    (turns({"type": "tool_result", "content": "x"}), "messages[0].content[0].tool_use_id", InvalidRequest),
    (turns({"type": "tool_use", "name": "f"}, role="assistant"), "messages[0].content[0].id", InvalidRequest),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type", Unsupported),
    ({"mcp_servers": [{"url": "x"}]}, "mcp_servers", Unsupported),
    ({"container": "c"}, "container", Unsupported),
    ({"inference_geo": "eu"}, "inference_geo", Unsupported),
    ({"output_config": {"task_budget": 9}}, "output_config.task_budget", Unsupported),
    ({"speed": "fast"}, "speed", InvalidRequest),
    ({"n": 2}, "n", Unsupported),
    ({"context_management": {"edits": 5}}, "context_management.edits", InvalidRequest),
    ({"context_management": {"edits": [{"type": "compact"}]}}, "context_management", Unsupported),
    (turns({"type": "document", "source": {"type": "base64"}}), "messages[0].content[0]", Unsupported),
    (turns({"type": "search_result"}), "messages[0].content[0]", Unsupported),
    ({"system": [PNG]}, "system[0]", Unsupported),
    ({"messages": [HI, {"role": "assistant", "content": "I begin"}]}, "messages", Unsupported),
]


@pytest.mark.parametrize(("sent", "param", "kind"), WRONG)
def test_what_is_refused(sent: dict[str, Any], param: str, kind: type[InvalidRequest]) -> None:
    """What is wrong, or has no place here, names its field; nothing is left out in silence."""
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(body(**sent))
    assert (caught.value.param, type(caught.value)) == (param, kind)


def test_who_wants_to_see_thoughts() -> None:
    """Thoughts are shown to those who asked for them; a count needs no max_tokens."""
    assert parse_messages(body(thinking={"type": "adaptive"})).thinking
    assert not parse_messages(body(thinking={"type": "disabled"})).thinking
    assert not parse_messages(body()).thinking
    assert parse_messages(body(max_tokens=None), counting=True).chat.max_output is None
