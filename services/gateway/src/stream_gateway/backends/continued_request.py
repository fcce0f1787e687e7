"""Requests around a continuation: whether an answer may be continued, with what, and how to measure it. Pure.

A continuation gives the engine the text so far as the start of its answer: a last message of the assistant, with
`continue_final_message` for engines like vLLM (it is not the default there); llama.cpp does it unasked. Sampling
fields stay. Penalties see the text so far as prompt, and a seeded answer above temperature 0 goes on with fresh
random numbers: it is a continuation that the model could have written, not the very same.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from stream_core.openai.sse import EventSplitter, data_of

DECLARED: Final = "continue_final_message"
"""Capability of a model whose engine takes the flag of this name and returns the new text only."""

_FLAGS: Final = {"continue_final_message": True, "add_generation_prompt": False}
_LIMITS: Final = ("max_completion_tokens", "max_tokens")
_UNCONTINUABLE: Final = (
    "functions",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "json_schema",
    "audio",
    "echo",
    "continue_final_message",
    "prompt_logprobs",
    "return_token_ids",
    "use_beam_search",
)
"""Fields with which an answer has a form, or a state in the engine, that its text alone does not carry over."""
_OF_THE_STREAM: Final = ("stream", "stream_options", "min_tokens", "logprobs", "top_logprobs")


def obstacle(request: Mapping[str, Any]) -> str | None:
    """Tell why an answer to this request can't be continued once text of it was sent; None when it can.

    Args:
        request: the OpenAI chat request.
    """
    if (request.get("n") or 1) > 1:
        return "n"
    if (request.get("response_format") or {}).get("type", "text") != "text":
        return "response_format"
    if request.get("tool_choice") not in (None, "auto", "none"):
        return "tool_choice"
    if "audio" in (request.get("modalities") or ()):
        return "modalities"
    messages = request.get("messages") or [{"role": "assistant"}]
    if messages[-1].get("role") == "assistant":
        return "messages"
    return next((name for name in _UNCONTINUABLE if request.get(name)), None)


def wants_usage(request: Mapping[str, Any]) -> bool:
    """Whether the caller asked for the usage of a streamed answer."""
    return bool((request.get("stream_options") or {}).get("include_usage"))


def token_limit(request: Mapping[str, Any]) -> int | None:
    """Tokens that the caller allows for the answer; None without a limit."""
    return next((limit for name in _LIMITS if (limit := request.get(name)) is not None), None)


def with_given(request: Mapping[str, Any], given: str) -> dict[str, Any]:
    """Put the text so far at the conversation's end, to be continued."""
    return {**request, **_FLAGS, "messages": [*request["messages"], {"role": "assistant", "content": given}]}


def continuation(request: Mapping[str, Any], given: str, given_tokens: int) -> dict[str, Any]:
    """Ask for the rest of an answer.

    Args:
        request: the caller's.
        given: the text so far, cut between two chunks: half a token leads a model elsewhere.
        given_tokens: its tokens; they count against the caller's limits. Fewer than the limit.
    """
    body = with_given(request, given)
    for name in (*_LIMITS, "min_tokens"):
        if body.get(name) is not None:
            body[name] = max(0, body[name] - given_tokens)
    return body


def measuring(request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for one token of an answer to this request, not streamed: its usage tells the prompt's tokens."""
    body = {name: value for name, value in request.items() if name not in (*_LIMITS, *_OF_THE_STREAM)}
    limit = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
    return {**body, limit: 1, "stream": False}


_COUNTED: Final = "One, two, three, four, five, six, seven"


def echo_question(request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for one token after a given text that no model would say again: the answer tells the engine's way.

    Args:
        request: the caller's; its fields stay, its messages do not.
    """
    messages = [{"role": "user", "content": "Count to twelve in words."}]
    return with_given({**measuring(request), "messages": messages, "stream": True}, _COUNTED)


def is_echo(stream: bytes) -> bool:
    """Whether the engine's answer to `echo_question` began with the text that it was given.

    Args:
        stream: the whole stream of events.
    """
    text = ""
    for event in EventSplitter().feed(stream):
        data = data_of(event)
        if data and data.startswith(b"{"):
            for choice in orjson.loads(data).get("choices") or ():
                text += (choice.get("delta") or {}).get("content") or ""
    return text.startswith(_COUNTED)
