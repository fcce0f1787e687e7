"""What a chat request demands of a model, field by field, and which fields contradict each other."""

from typing import Any

import orjson
import pytest

from stream_core.errors import InvalidRequest
from stream_core.openai.models import parse_chat

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}], **fields})


def part(kind: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: {}}]}]}


DEMANDS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, []),
    ({"tools": [FUNCTION, FUNCTION]}, [("tools", "tools")]),
    ({"tools": [FUNCTION, {"type": "custom"}]}, [("tools", "tools"), ("tool:custom", "tools[1].type")]),
    ({"tool_choice": {"type": "allowed_tools"}}, [("allowed_tools", "tool_choice.type")]),
    ({"response_format": {"type": "text"}}, []),
    ({"response_format": {"type": "json_object"}}, [("json_schema", "response_format")]),
    ({"response_format": SCHEMA}, [("json_schema", "response_format")]),
    ({"response_format": {"type": "odd"}}, [("response_format:odd", "response_format.type")]),
    ({"logprobs": True, "top_logprobs": 2}, [("logprobs", "logprobs")]),
    ({"logprobs": False}, []),
    ({"modalities": ["text"]}, []),
    (
        {"modalities": ["text", "audio"], "audio": {"voice": "x"}},
        [("audio_output", "modalities"), ("audio_output", "audio")],
    ),
    ({"service_tier": "auto"}, []),
    ({"service_tier": "default"}, []),
    ({"service_tier": "flex"}, [("service_tier", "service_tier")]),
    ({"store": False}, []),
    ({"store": True}, [("store", "store")]),
    ({"functions": [{"name": "f"}]}, [("functions", "functions")]),
    ({"prediction": {"type": "content", "content": "x"}}, [("prediction", "prediction")]),
    ({"web_search_options": {"a": 1}}, [("web_search", "web_search_options")]),
    (part("refusal"), []),
    (part("image_url"), []),
    (part("input_audio"), []),
    (part("file"), [("part:file", "messages[0].content[1].type")]),
    (part("video_url"), [("part:video_url", "messages[0].content[1].type")]),
    ({"reasoning_effort": "high", "verbosity": "low", "user": "u", "metadata": {"a": "b"}, "seed": 1}, []),
]


@pytest.mark.parametrize(("fields", "expected"), DEMANDS)
def test_each_field_demands_its_capability(fields: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """The table of `demands.py`, row by row."""
    assert [(demand.capability, demand.param) for demand in parse_chat(body(**fields)).demands] == expected


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"stream_options": {"include_usage": True}}, "stream_options", "when 'stream' is true"),
    ({"top_logprobs": 2}, "top_logprobs", "when 'logprobs' is true"),
    ({"logit_bias": {"hello": 1}}, "logit_bias", "a token's number"),
    ({"logit_bias": {"12": 101}}, "logit_bias", "from -100 to 100"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name", "missing"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", "missing"),
    ({"tool_choice": "always"}, "tool_choice", "none, auto, required"),
    ({"tool_choice": "required"}, "tool_choice", "when 'tools' are given"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function.name", "missing"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
        "no tool named 'g'",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0]", "needs a function"),
    ({"temperature": 2.5}, "temperature", "<= 2"),
    ({"top_p": 1.5}, "top_p", "<= 1"),
    ({"presence_penalty": -3}, "presence_penalty", ">= -2"),
    ({"frequency_penalty": 3}, "frequency_penalty", "<= 2"),
    ({"n": 129}, "n", "<= 128"),
    ({"store": "yes"}, "store", "true or false"),
    ({"metadata": "x"}, "metadata", "an object"),
    ({"reasoning_effort": 3}, "reasoning_effort", "a string"),
]


@pytest.mark.parametrize(("fields", "param", "words"), WRONG)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], param: str, words: str) -> None:
    """A value out of its range, or one that contradicts another field, is refused and named."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**fields))
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True, "stream_options": {"include_usage": True}},
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": "auto"},
        {"logit_bias": {"12": -100, "13": 100}},
    ],
)
def test_what_makes_sense_is_taken(fields: dict[str, Any]) -> None:
    """The same fields where they belong."""
    assert parse_chat(body(**fields)).body.items() >= fields.items()
