"""Anthropic's request, as the chat request that it is. Pure: bytes in, record out.

    Anthropic                                | chat
    -----------------------------------------+---------------------------------------------------------------
    system                                   | a first message of role system
    blocks text, image                       | parts text, image_url
    block tool_result                        | a message of role tool; its images follow in a user message
    block tool_use                           | tool_calls
    block thinking                           | reasoning_content; redacted_thinking is left out, it is opaque
    tools, tool_choice any/tool/none         | tools, tool_choice required/named/none
    disable_parallel_tool_use                | parallel_tool_calls: false
    stop_sequences, metadata.user_id         | stop, user
    thinking.budget_tokens                   | reasoning_effort: low below 4,096, medium below 16,384, else high
    output_config.effort, .format            | reasoning_effort, response_format
    cache_control, service_tier              | nothing: a prefix that is known is used again by itself
    tools' eager_input_streaming             | nothing: arguments are streamed as they come

Whatever else it has passes on under its own name, as in a chat request. What has no place is 400 with its field.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from stream_core.errors import InvalidRequest, Unsupported
from stream_core.openai.models import ChatRequest, chat_of, read_object, typed
from stream_gateway.dialects.messages_blocks import Block, messages_of, system_text

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Model = Annotated[_Name, msgspec.Meta(examples=["auto"])]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_LOW_BUDGET: Final = 4_096
_MEDIUM_BUDGET: Final = 16_384
_EFFORTS: Final = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_AT_ANTHROPIC: Final = (
    "container",
    "mcp_servers",
    "inference_geo",
    "diagnostics",
    "compaction",
    "fallbacks",
    "fallback_credit_token",
    "thread",
    "billing_policy",
)
_COMMON_IN_TOOLS: Final[dict[str, Any]] = {"defer_loading": False, "allowed_callers": ["direct"], "input_examples": []}
_HARMLESS_EDITS: Final = frozenset({"clear_thinking_20251015"})
"""They only leave out what we leave out anyway."""


class Turn(msgspec.Struct):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool; those with a type of their own run at Anthropic or need a model that knows them."""

    name: _Name
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    input_examples: list[Any] | None = None


class ToolChoice(msgspec.Struct):
    """Whether a tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    """Whether the model may think first."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Effort and form."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class MessagesBody(msgspec.Struct):
    """The whole request."""

    model: _Model
    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    system: str | list[Block] | None = None
    stream: bool | None = None
    temperature: _Share | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    container: Any = None
    mcp_servers: list[Any] | None = None
    context_management: dict[str, Any] | None = None
    speed: Literal["standard"] | None = None
    inference_geo: str | None = None
    diagnostics: Any = None
    compaction: Any = None
    fallbacks: Any = None
    fallback_credit_token: Any = None
    thread: Any = None
    billing_policy: Any = None


_KNOWN: Final = frozenset(MessagesBody.__struct_fields__) | {"cache_control"}


class Asked(msgspec.Struct, frozen=True):
    """A request that was understood."""

    chat: ChatRequest
    thinking: bool
    """Whether the client wants to see what the model says to itself."""


def parse_messages(data: bytes, *, counting: bool = False) -> Asked:
    """Read the body of `POST /v1/messages`.

    Args:
        data: JSON.
        counting: of `/count_tokens`, which has no max_tokens.

    Raises:
        InvalidRequest: naming the field.
    """
    body = read_object(data)
    asked = typed(body, MessagesBody)
    if asked.max_tokens is None and not counting:
        raise InvalidRequest("max_tokens is missing", param="max_tokens")
    if body.get("n") is not None:
        raise Unsupported("n: there is one answer to a message", param="n")
    _check_unsupported(asked)
    messages = [{"role": "system", "content": text}] if (text := system_text(asked.system)) else []
    for index, turn in enumerate(asked.messages):
        messages += messages_of(turn.role, turn.content, f"messages[{index}]")
    if asked.messages[-1].role == "assistant":
        raise Unsupported(
            "messages: the last one must be the user's, answers are not begun for the model", param="messages"
        )
    chat: dict[str, Any] = {name: value for name, value in body.items() if name not in _KNOWN}
    chat |= {"model": asked.model, "messages": messages}
    chat |= _plain(asked) | _tools(asked) | _thinking(asked)
    wants = asked.thinking is not None and asked.thinking.type != "disabled" and asked.thinking.display != "omitted"
    return Asked(chat_of(chat), wants)


def schemas(ref_template: str = "#/components/schemas/{name}") -> dict[str, Any]:
    """Describe the body, as JSON Schema components by name."""
    return msgspec.json.schema_components([MessagesBody], ref_template=ref_template)[1]


def _check_unsupported(asked: MessagesBody) -> None:
    for name in _AT_ANTHROPIC:
        if getattr(asked, name):
            raise Unsupported(f"{name}: there is none here", param=name)
    edits = (asked.context_management or {}).get("edits") or []
    if not isinstance(edits, list):
        raise InvalidRequest("context_management.edits: a list is expected", param="context_management.edits")
    for edit in edits:
        kind = edit.get("type") if isinstance(edit, dict) else edit
        if kind not in _HARMLESS_EDITS:
            raise Unsupported(f"context_management: {str(kind)[:60]!r} is not done here", param="context_management")
    for index, tool in enumerate(asked.tools or ()):
        _check_tool(tool, f"tools[{index}]")


def _check_tool(tool: Tool, where: str) -> None:
    if tool.type not in {None, "custom"}:
        words = f"{where}.type: {str(tool.type)[:60]!r} is no tool of the client, and not known here"
        raise Unsupported(words, param=f"{where}.type")
    if tool.input_schema is None:
        raise InvalidRequest(f"{where}.input_schema is missing", param=f"{where}.input_schema")
    for name, common in _COMMON_IN_TOOLS.items():
        if (getattr(tool, name) or common) != common:
            raise Unsupported(f"{where}.{name}: there is no place for it in a chat", param=f"{where}.{name}")


def _plain(asked: MessagesBody) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    for name in ("max_tokens", "temperature", "top_p", "top_k"):
        if (value := getattr(asked, name)) is not None:
            chat[name] = value
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    if isinstance(user := (asked.metadata or {}).get("user_id"), str):
        chat["user"] = user
    return chat


def _tools(asked: MessagesBody) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if asked.tools:
        chat["tools"] = [{"type": "function", "function": _function(tool)} for tool in asked.tools]
    choice = asked.tool_choice
    if choice is None:
        return chat
    match choice.type:
        case "any":
            chat["tool_choice"] = "required"
        case "tool":
            chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case kind:
            chat["tool_choice"] = kind
    if choice.disable_parallel_tool_use:
        chat["parallel_tool_calls"] = False
    return chat


def _function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _thinking(asked: MessagesBody) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    config = asked.output_config or OutputConfig()
    if asked.thinking is not None and asked.thinking.type == "enabled":
        budget = asked.thinking.budget_tokens
        if budget is None:
            raise InvalidRequest("thinking.budget_tokens is missing", param="thinking.budget_tokens")
        chat["reasoning_effort"] = "low" if budget < _LOW_BUDGET else "medium" if budget < _MEDIUM_BUDGET else "high"
    if config.effort is not None:
        if config.effort not in _EFFORTS:
            words = f"output_config.effort: {config.effort[:40]!r} is not one of {', '.join(_EFFORTS)}"
            raise InvalidRequest(words, param="output_config.effort")
        chat["reasoning_effort"] = _EFFORTS[config.effort]
    if config.format is not None:
        if config.format.get("type") != "json_schema" or not isinstance(config.format.get("schema"), dict):
            words = "output_config.format: only a json_schema with its schema is possible"
            raise InvalidRequest(words, param="output_config.format")
        schema = {"name": "output", "schema": config.format["schema"], "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat
