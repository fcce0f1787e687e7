"""Requests besides chat: what routing learns of them, and what is wrong with them."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from stream_core.errors import InvalidRequest
from stream_core.openai.models import ChatRequest
from stream_core.openai.requests import parse_completion, parse_embedding, parse_moderation, parse_tokenize, schemas

Parse = Callable[[bytes], ChatRequest]

GOOD: list[tuple[Parse, dict[str, Any], str, list[str]]] = [
    (parse_completion, {"prompt": "once"}, "/completions", []),
    (parse_completion, {"prompt": ["a", "b"], "echo": True, "n": 2}, "/completions", []),
    (parse_completion, {"prompt": [1, 2]}, "/completions", []),
    (parse_completion, {"prompt": [[1], [2]]}, "/completions", []),
    (
        parse_completion,
        {"prompt": "a", "logprobs": 2, "suffix": "z", "best_of": 3},
        "/completions",
        ["logprobs", "suffix", "best_of"],
    ),
    (parse_embedding, {"input": "a", "encoding_format": "base64"}, "/embeddings", []),
    (parse_embedding, {"input": ["a", "b"], "dimensions": 8}, "/embeddings", ["dimensions"]),
    (parse_moderation, {"input": [{"type": "text", "text": "a"}]}, "/moderations", []),
    (parse_tokenize, {"prompt": "a"}, "/tokenize", ["tokenize"]),
    (parse_tokenize, {"messages": [{"role": "user", "content": "a"}]}, "/tokenize", ["tokenize_chat"]),
]


@pytest.mark.parametrize(("parse", "fields", "path", "demands"), GOOD)
def test_what_routing_learns(parse: Parse, fields: dict[str, Any], path: str, demands: list[str]) -> None:
    """Path and demands are read, and the body keeps every field."""
    sent = {"model": "m", "own": 1, **fields}
    asked = parse(orjson.dumps(sent))
    assert (asked.path, [demand.capability for demand in asked.demands]) == (path, demands)
    assert asked.body.items() >= sent.items()
    assert not asked.stream


WRONG: list[tuple[Parse, dict[str, Any], str]] = [
    (parse_completion, {}, "prompt"),
    (parse_completion, {"prompt": {"a": 1}}, "prompt"),
    (parse_completion, {"prompt": ["a", 1]}, "prompt"),
    (parse_completion, {"prompt": [True]}, "prompt"),
    (parse_completion, {"prompt": [1], "model": "auto"}, "prompt"),
    (parse_completion, {"prompt": "a", "stream_options": {}}, "stream_options"),
    (parse_embedding, {"input": ""}, "input"),
    (parse_embedding, {"input": []}, "input"),
    (parse_embedding, {"input": ["x"] * 2049}, "input"),
    (parse_embedding, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    (parse_embedding, {"input": "a", "dimensions": 0}, "dimensions"),
    (parse_moderation, {"input": ""}, "input"),
    (parse_tokenize, {}, "prompt"),
    (parse_tokenize, {"prompt": "a", "messages": []}, "prompt"),
    (parse_tokenize, {"prompt": "a", "model": "auto"}, "model"),
]


@pytest.mark.parametrize(("parse", "fields", "param"), WRONG)
def test_wrong_requests_name_the_field(parse: Parse, fields: dict[str, Any], param: str) -> None:
    """Each is refused and names its field."""
    with pytest.raises(InvalidRequest) as caught:
        parse(orjson.dumps({"model": "m", **fields}))
    assert caught.value.param == param


def test_the_prompt_is_what_the_judge_sees() -> None:
    """A completion's texts are its turns; a moderation may leave out the model."""
    asked = parse_completion(orjson.dumps({"model": "auto", "prompt": ["a", "b"], "stream": True, "max_tokens": 5}))
    assert [turn.text for turn in asked.tail(9)] == ["a", "b"]
    assert (asked.stream, asked.max_output) == (True, 5)
    assert parse_moderation(b'{"input":"a"}').model == "auto"


def test_the_schemas_name_the_fields() -> None:
    """The bodies are described for the OpenAPI document."""
    described = dict(schemas())
    assert {"CompletionBody", "EmbeddingBody", "ModerationBody", "TokenizeBody"} <= set(described)
