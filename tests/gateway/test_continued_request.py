"""Requests around a continuation."""

import json

import pytest

from stream_gateway.backends import continued_request as requests

ASK = {"model": "m", "messages": [{"role": "user", "content": "count"}], "stream": True, "seed": 7, "temperature": 0.5}


@pytest.mark.parametrize(
    ("more", "obstacle"),
    [
        ({}, None),
        ({"n": 1, "response_format": {"type": "text"}, "tools": [{"type": "function"}], "tool_choice": "auto"}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
        ({"logprobs": True, "top_logprobs": 2, "stop": ["\n"], "max_tokens": 5}, None),
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "assistant", "content": "One"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"grammar": "root ::= x"}, "grammar"),
        ({"continue_final_message": True}, "continue_final_message"),
    ],
)
def test_obstacle(more, obstacle):
    """A request is continued unless its answer has a form or a state that the text alone does not carry over."""
    assert requests.obstacle(ASK | more) == obstacle


def test_continuation():
    """The text so far is the last message; limits shrink by what it cost; every other field stays as it was sent."""
    ask = ASK | {"max_tokens": 10, "min_tokens": 3, "max_completion_tokens": None, "top_k": 40}
    body = requests.continuation(ask, "one two", 4)
    assert body["messages"] == [*ASK["messages"], {"role": "assistant", "content": "one two"}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert (body["max_tokens"], body["min_tokens"], body["max_completion_tokens"]) == (6, 0, None)
    assert {name: body[name] for name in ("model", "stream", "seed", "temperature", "top_k")} == {
        name: ask[name] for name in ("model", "stream", "seed", "temperature", "top_k")
    }
    assert ask["messages"] == ASK["messages"]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_measuring(limit):
    """A measurement is the same prompt, tools and all, for one token in one piece."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    ask = ASK | {
        limit: 10,
        "stream_options": {"include_usage": True},
        "min_tokens": 5,
        "logprobs": True,
        "tools": tools,
    }
    body = requests.measuring(ask)
    assert (body["stream"], body[limit], body["messages"], body["tools"]) == (False, 1, ask["messages"], tools)
    assert not {"stream_options", "min_tokens", "logprobs"} & set(body)
    assert requests.wants_usage(ask)
    assert not requests.wants_usage(body)
    assert requests.token_limit(ask) == 10


def test_echo_is_told_by_an_answer():
    """An engine's way is told by the answer to a question whose given text no model repeats."""
    given = requests.echo_question(ASK)["messages"][-1]["content"]

    def stream(*texts: str) -> bytes:
        chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts]
        return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"

    assert requests.is_echo(stream("", given[:7], given[7:], ","))
    assert not requests.is_echo(stream(", eight"))
    assert not requests.is_echo(b"")
