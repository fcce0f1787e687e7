"""The request of OpenAI's Responses API, as the chat request that it is. Pure: bytes in, record out.

    Responses                              | chat
    ---------------------------------------+--------------------------------------------
    instructions                           | a first message of role system
    input, and what came before it         | messages, see `responses_items`
    max_output_tokens                      | max_completion_tokens
    text.format, text.verbosity            | response_format, verbosity
    reasoning.effort                       | reasoning_effort
    tools of type function, tool_choice    | tools, tool_choice
    top_logprobs, include ...logprobs      | top_logprobs, logprobs
    temperature, top_p, user, ...          | the same
    truncation, max_tool_calls             | nothing: what is too long is condensed; tools all run at the client

What runs at OpenAI (built-in tools, prompts, conversations, background) is 400 with its field, whatever lies within an
object that is translated and has no place in a chat, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from stream_core.errors import InvalidRequest, Unsupported
from stream_core.openai.models import read_object, typed

_Model = Annotated[str, msgspec.Meta(min_length=1, max_length=300, examples=["auto"])]
_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDES: Final = frozenset({_LOGPROBS, "reasoning.encrypted_content"})
"""Encrypted thoughts are asked for by clients that keep nothing here; ours are never encrypted, so there are none."""
_AT_OPENAI: Final = (
    "background",
    "conversation",
    "prompt",
    "context_management",
    "moderation",
    "image",
    "access_programs",
)
_SAME: Final = (
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "service_tier",
    "parallel_tool_calls",
)
_OF_SERVERS_TOOLS: Final = ("allowed_callers", "async", "defer_loading")
"""How tools that run at OpenAI find and call a client's function."""
_MOST_METADATA: Final = 16


class Reasoning(msgspec.Struct, forbid_unknown_fields=True):
    """How hard to think; of thoughts all is given, never a summary alone."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """How to stream; usage is always told, and events are never padded."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """The form of the answer."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseBody(msgspec.Struct):
    """The whole request."""

    model: _Model
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_tool_calls: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    image: Any = None
    access_programs: Any = None


_KNOWN: Final = frozenset(ResponseBody.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that was understood, without what came before it."""

    body: ResponseBody
    own: dict[str, Any]
    """Fields that pass on under their own names."""

    @property
    def items(self) -> list[dict[str, Any]]:
        """The input as items."""
        given = self.body.input
        return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given or []


def parse_response(data: bytes) -> Wanted:
    """Read the body of `POST /v1/responses`.

    Raises:
        InvalidRequest: naming the field.
    """
    body = read_object(data)
    asked = typed(body, ResponseBody)
    _check_unsupported(asked)
    if body.get("n") is not None:
        raise Unsupported("n: there is one response to a request", param="n")
    if asked.input is None and asked.previous_response_id is None:
        raise InvalidRequest("input is missing", param="input")
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest("stream_options: only allowed when 'stream' is true", param="stream_options")
    if len(asked.metadata or ()) > _MOST_METADATA:
        words = f"metadata: {len(asked.metadata or ())} pairs, at most {_MOST_METADATA} are allowed"
        raise InvalidRequest(words, param="metadata")
    return Wanted(asked, {name: value for name, value in body.items() if name not in _KNOWN})


def chat_body(wanted: Wanted, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the chat request.

    Args:
        wanted: the request.
        messages: of the whole conversation, without the instructions.
    """
    asked = wanted.body
    system = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
    chat: dict[str, Any] = {**wanted.own, "model": asked.model, "messages": [*system, *messages]}
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    for name in _SAME:
        if (value := getattr(asked, name)) is not None:
            chat[name] = value
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        chat["reasoning_effort"] = asked.reasoning.effort
    if asked.top_logprobs or _LOGPROBS in (asked.include or ()):
        chat |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    return chat | _form(asked) | _tools(asked)


def schemas(ref_template: str = "#/components/schemas/{name}") -> dict[str, Any]:
    """Describe the body, as JSON Schema components by name."""
    return msgspec.json.schema_components([ResponseBody], ref_template=ref_template)[1]


def _check_unsupported(asked: ResponseBody) -> None:
    for name in _AT_OPENAI:
        if getattr(asked, name):
            raise Unsupported(f"{name}: there is none here", param=name)
    if asked.stream_options is not None and asked.stream_options.include_obfuscation:
        where = "stream_options.include_obfuscation"
        raise Unsupported(f"{where}: events are not padded here", param=where)
    for index, tool in enumerate(asked.tools or ()):
        _check_tool(tool, f"tools[{index}]")
    check_include(asked.include or ())


def _check_tool(tool: dict[str, Any], where: str) -> None:
    if tool.get("type") != "function":
        words = f"{where}.type: {str(tool.get('type'))[:60]!r} is not run here, only 'function' is"
        raise Unsupported(words, param=f"{where}.type")
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(f"{where}.name is missing", param=f"{where}.name")
    for name in _OF_SERVERS_TOOLS:
        if tool.get(name):
            raise Unsupported(f"{where}.{name}: every tool is the client's here", param=f"{where}.{name}")


def check_include(names: Iterable[str]) -> None:
    """Refuse what a response can't include here."""
    for name in names:
        if name not in _INCLUDES:
            raise Unsupported(f"include: {name[:80]!r} is not known here", param="include")


def _form(asked: ResponseBody) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    text = asked.text or Text()
    if text.verbosity is not None:
        chat["verbosity"] = text.verbosity
    form = text.format or {"type": "text"}
    match form.get("type"):
        case "text":
            pass
        case "json_object":
            chat["response_format"] = {"type": "json_object"}
        case "json_schema":
            if not isinstance(form.get("name"), str) or not isinstance(form.get("schema"), dict):
                raise InvalidRequest("text.format: a json_schema needs a name and a schema", param="text.format")
            schema = {name: value for name, value in form.items() if name != "type"}
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case kind:
            words = f"text.format.type: {str(kind)[:40]!r} is not one of text, json_object, json_schema"
            raise InvalidRequest(words, param="text.format.type")
    return chat


def _tools(asked: ResponseBody) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if asked.tools:
        functions = [{name: value for name, value in tool.items() if name != "type"} for tool in asked.tools]
        chat["tools"] = [{"type": "function", "function": function} for function in functions]
    choice = asked.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None:
        chat["tool_choice"] = choice
    return chat
