"""The request of the Responses API as a chat request: fields, items, and what is refused."""

from typing import Any

import orjson
import pytest

from stream_core.errors import InvalidRequest, Unsupported
from stream_core.openai.models import chat_of
from stream_gateway.dialects.responses_items import messages_of
from stream_gateway.dialects.responses_request import chat_body, parse_response

FUNCTION: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
CHAT_FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "auto", "input": "hi", **fields})


def chat(**fields: Any) -> dict[str, Any]:
    wanted = parse_response(body(**fields))
    made = chat_body(wanted, messages_of(wanted.items))
    chat_of(made)
    return made


FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}),
    (
        {"instructions": "be brief"},
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]},
    ),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}, "strict": True}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
    ),
    ({"tools": [FUNCTION], "tool_choice": "required"}, {"tools": [CHAT_FUNCTION], "tool_choice": "required"}),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    (
        {"temperature": 0.5, "top_p": 0.5, "user": "u", "parallel_tool_calls": False},
        {"temperature": 0.5, "top_p": 0.5, "user": "u", "parallel_tool_calls": False},
    ),
    ({"own": 1, "include": ["reasoning.encrypted_content"], "truncation": "auto"}, {"own": 1}),
]


@pytest.mark.parametrize(("sent", "expected"), FIELDS)
def test_fields(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each field has its place in the chat request, which is a valid one."""
    assert chat(**sent).items() >= expected.items()


IMAGE = {"type": "input_image", "image_url": "data:x"}
FILE = {"type": "input_image", "file_id": "f"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ITEMS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        [{"role": "developer", "content": "d"}, {"type": "message", "role": "user", "content": "u"}],
        [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}],
    ),
    (
        [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": "data:x", "detail": "low"},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                ],
            }
        ],
    ),
    (
        [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
            CALL,
            {**CALL, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_image", "image_url": "data:x"}],
            },
        ],
        [
            {
                "role": "assistant",
                "content": "I look",
                "reasoning_content": "hm",
                "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "c2"}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "tool", "tool_call_id": "c2", "content": "[its images follow]"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
        ],
    ),
    (
        [{"role": "user", "content": "u"}, {"type": "reasoning", "summary": [{"text": "hm"}]}, CALL],
        [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CHAT_CALL]},
        ],
    ),
]


@pytest.mark.parametrize(("items", "expected"), ITEMS)
def test_items(items: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Each kind of item becomes the messages that say the same."""
    assert messages_of(items) == expected


WRONG: list[tuple[dict[str, Any], str, type[InvalidRequest]]] = [
    ({"input": None}, "input", InvalidRequest),
    ({"input": 3}, "input", InvalidRequest),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role", InvalidRequest),
    ({"input": [{"role": "user", "content": 3}]}, "input[0].content", InvalidRequest),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id", InvalidRequest),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", InvalidRequest),
    ({"input": [{"type": "reasoning", "summary": 0.5}]}, "input[0].summary", InvalidRequest),
    ({"input": [{"type": "reasoning", "content": "hm"}]}, "input[0].content", InvalidRequest),
    ({"input": [{"type": "reasoning", "summary": [{"text": 1}]}]}, "input[0].summary[0].text", InvalidRequest),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format", InvalidRequest),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", InvalidRequest),
    ({"stream_options": {}}, "stream_options", InvalidRequest),
    ({"tools": [{"type": "function"}]}, "tools[0].name", InvalidRequest),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", InvalidRequest),
    ({"max_output_tokens": 0}, "max_output_tokens", InvalidRequest),
    ({"truncation": "some"}, "truncation", InvalidRequest),
    ({"reasoning": {"depth": 3}}, "reasoning.depth", Unsupported),
    ({"text": {"colour": "red"}}, "text.colour", Unsupported),
    ({"stream": True, "stream_options": {"pad": True}}, "stream_options.pad", Unsupported),
    ({"tools": [{**FUNCTION, "defer_loading": True}]}, "tools[0].defer_loading", Unsupported),
    ({"tools": [{**FUNCTION, "async": True}]}, "tools[0].async", Unsupported),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", Unsupported),
    ({"tools": [FUNCTION, {"type": "file_search"}]}, "tools[1].type", Unsupported),
    ({"include": ["file_search_call.results"]}, "include", Unsupported),
    ({"background": True}, "background", Unsupported),
    ({"n": 2}, "n", Unsupported),
    ({"conversation": "conv_1"}, "conversation", Unsupported),
    ({"prompt": {"id": "pmpt_1"}}, "prompt", Unsupported),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", Unsupported),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]", Unsupported),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0]",
        Unsupported,
    ),
]


def test_a_wrong_choice_is_told_the_right_ones() -> None:
    """Of a field that has a few values the error names just these."""
    with pytest.raises(
        InvalidRequest, match=r"truncation: invalid enum value 'some', one of auto, disabled is expected"
    ):
        chat(truncation="some")


@pytest.mark.parametrize(("sent", "param", "kind"), WRONG)
def test_what_is_refused(sent: dict[str, Any], param: str, kind: type[InvalidRequest]) -> None:
    """What is wrong, or has no place here, names its field; nothing is left out in silence."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**sent)
    assert (caught.value.param, type(caught.value)) == (param, kind)
