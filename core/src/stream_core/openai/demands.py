"""What a chat request demands of a model beyond text, and fields that contradict each other. Pure.

A field that a model can't honour must not be lost in silence: each demand names a capability, which a model has or has
not (`capabilities` in `stream.yaml`), and the field that asks for it. Wishes (`reasoning_effort`, `verbosity`, `user`,
`metadata`, ...) demand nothing: they are passed on.

    field                                  | capability
    ---------------------------------------+-----------------------------------------------
    tools of type function                 | tools
    tools of another type                  | tool:<type>
    tool_choice of another type            | <type>
    response_format json_object, _schema   | json_schema
    response_format of another type        | response_format:<type>
    logprobs                               | logprobs
    modalities with "audio", audio         | audio_output
    a part of type file, video_url, ...    | part:<type>; image and audio are modalities
    functions, function_call               | functions (replaced by tools since 2023)
    prediction, web_search_options         | prediction, web_search
    store: true                            | store
    moderation                             | moderation
    service_tier, but for auto and default | service_tier
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_core.errors import InvalidRequest

PLAIN_PARTS: Final = frozenset({"text", "image_url", "input_audio", "refusal"})
"""Types of parts that need no capability of their own."""
_JSON: Final = ("json_object", "json_schema")
_CHOICES: Final = ("none", "auto", "required")
_USUAL_TIERS: Final = ("auto", "default")
_MOST_BIAS: Final = 100
_LONGEST: Final = 80
_WHOLE_FIELDS: Final = {
    "functions": "functions",
    "function_call": "functions",
    "prediction": "prediction",
    "web_search_options": "web_search",
    "store": "store",
    "moderation": "moderation",
    "audio": "audio_output",
}


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that not every model can do."""

    capability: str
    param: str
    """The field that asks for it."""


def demands_of(body: Mapping[str, Any]) -> Iterator[Demand]:
    """Yield what a valid request demands.

    Args:
        body: of which `models.parse_chat` has checked the types.
    """
    yield from _of_tools(body)
    kind = (body.get("response_format") or {}).get("type", "text")
    if kind in _JSON:
        yield Demand("json_schema", "response_format")
    elif kind != "text":
        yield Demand(f"response_format:{kind}"[:_LONGEST], "response_format.type")
    if body.get("logprobs"):
        yield Demand("logprobs", "logprobs")
    if "audio" in (body.get("modalities") or ()):
        yield Demand("audio_output", "modalities")
    if (body.get("service_tier") or "auto") not in _USUAL_TIERS:
        yield Demand("service_tier", "service_tier")
    for name, capability in _WHOLE_FIELDS.items():
        if body.get(name):
            yield Demand(capability, name)
    yield from _of_parts(body["messages"])


def _of_tools(body: Mapping[str, Any]) -> Iterator[Demand]:
    for index, tool in enumerate(body.get("tools") or ()):
        if tool["type"] == "function":
            yield Demand("tools", "tools")
        else:
            yield Demand(f"tool:{tool['type']}"[:_LONGEST], f"tools[{index}].type")
    if isinstance(choice := body.get("tool_choice"), dict) and choice.get("type") != "function":
        yield Demand(f"{choice.get('type')}"[:_LONGEST], "tool_choice.type")


def _of_parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[Demand]:
    for place, message in enumerate(messages):
        parts = message.get("content")
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if part["type"] not in PLAIN_PARTS:
                yield Demand(f"part:{part['type']}"[:_LONGEST], f"messages[{place}].content[{index}].type")


def check_together(body: Mapping[str, Any]) -> None:
    """Refuse fields that make no sense together.

    Args:
        body: of which the types have been checked.

    Raises:
        InvalidRequest: naming the field.
    """
    if body.get("stream_options") is not None and not body.get("stream"):
        raise _wrong("stream_options", "only allowed when 'stream' is true")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise _wrong("top_logprobs", "only allowed when 'logprobs' is true")
    for token, bias in (body.get("logit_bias") or {}).items():
        if not token.isdecimal() or not -_MOST_BIAS <= bias <= _MOST_BIAS:
            said = (
                f"{token[:20]!r}: {bias:g}; a token's number and a bias from -{_MOST_BIAS} to {_MOST_BIAS} are expected"
            )
            raise _wrong("logit_bias", said)
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
            raise InvalidRequest(
                "response_format.json_schema.name is missing", param="response_format.json_schema.name"
            )
    _check_choice(body)


def _check_choice(body: Mapping[str, Any]) -> None:
    choice, tools = body.get("tool_choice"), body.get("tools") or ()
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in _CHOICES:
            raise _wrong("tool_choice", f"{choice[:40]!r} is not one of {', '.join(_CHOICES)}")
        if choice == "required" and not tools:
            raise _wrong("tool_choice", "only allowed when 'tools' are given")
        return
    if choice.get("type") != "function":
        return  # of which the tools, or the capability, must be there
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest("tool_choice.function.name is missing", param="tool_choice.function.name")
    if not any(tool["type"] == "function" and tool["function"]["name"] == name for tool in tools):
        raise _wrong("tool_choice", f"no tool named {name[:80]!r} is given")


def _wrong(param: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {words}", param=param)
