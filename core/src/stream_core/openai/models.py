"""The OpenAI request as far as a gateway must look into it. Pure: bytes in, records out.

Only what routing needs is typed; every other field passes on as it came. A wrong field is an `InvalidRequest` whose
`param` names it the way OpenAI does: "messages[2].role".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import orjson

from stream_core.errors import InvalidRequest, Unsupported
from stream_core.openai.choices import choices
from stream_core.openai.demands import Demand, check_together, demands_of

CHAT: Final = "/chat/completions"
"""Path of chat requests in an engine's API, without its /v1."""
MAX_DEPTH: Final = 200
"""Nested objects and arrays in a request; JSON encoders down the road refuse more than 254."""

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Model = Annotated[_Name, msgspec.Meta(examples=["auto"])]


class Part(msgspec.Struct):
    """One part of a message's content; what it holds beside its type is the engine's business."""

    type: _Name
    text: str | None = None
    image_url: dict[str, Any] | str | None = None
    input_audio: dict[str, Any] | None = None


class FunctionName(msgspec.Struct):
    """What a tool of type function must have; its description and parameters pass on."""

    name: _Name


class Tool(msgspec.Struct):
    """A tool that the model may call."""

    type: _Name
    function: FunctionName | None = None

    def __post_init__(self) -> None:
        if self.type == "function" and self.function is None:
            raise ValueError("a tool of type function needs a function with a name")


class ToolCall(msgspec.Struct):
    """A tool call in an assistant's earlier message."""

    type: _Name = "function"
    function: dict[str, Any] | None = None


class Message(msgspec.Struct):
    """One message; which fields go with which role is the engine's business."""

    role: Role
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None


class ResponseFormat(msgspec.Struct):
    """The form that the answer must have."""

    type: _Name


class ChatBody(msgspec.Struct):
    """The whole request."""

    model: _Model
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None


_CHAT_FIELDS: Final = frozenset(ChatBody.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A message as text alone."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid chat request: the whole as it came, and what routing wants to know of it."""

    body: Mapping[str, Any]
    """Every field as it was sent."""
    model: str
    stream: bool
    messages: tuple[Message, ...]
    modalities: frozenset[str]
    """What its parts are: "text" always, "image", "audio"."""
    media_bytes: int
    """Bytes of the body that are images or audio, which no tokenizer sees as text."""
    media_parts: int
    tool_count: int
    structured: bool
    """JSON, or JSON of a schema, is asked for."""
    max_output: int | None
    """Tokens the caller allows for the answer; None when there is no limit."""
    demands: tuple[Demand, ...] = ()
    """What not every model can do."""
    path: str = CHAT
    """Of the engine's API. Other ones than chat are never condensed and never continued."""
    unknown: int = 0
    """How many fields the body has that are none of the API's: an engine may know them."""

    def tail(self, count: int) -> list[Turn]:
        """Give the last messages as text, the oldest first."""
        return [Turn(message.role, _text(message)) for message in self.messages[-count:]]


def parse_chat(data: bytes) -> ChatRequest:
    """Read the body of `POST /v1/chat/completions`.

    Args:
        data: JSON.

    Raises:
        InvalidRequest: not JSON, not an object, nested too deep, or a field of a wrong type or value.
    """
    return chat_of(read_object(data))


def read_object(data: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object, not nested too deep; errors as of `parse_chat`."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {_kind(body)}")
    # There are at most as many levels as opening brackets: most bodies need no walk.
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and (depth := _depth(body)) > MAX_DEPTH:
        raise InvalidRequest(f"the body is nested {depth} levels deep, at most {MAX_DEPTH} are allowed")
    return body


_B = TypeVar("_B", bound=msgspec.Struct)


def typed(body: Mapping[str, Any], kind: type[_B]) -> _B:
    """Check the types of a body's fields.

    Raises:
        InvalidRequest: naming the first field that is wrong.
    """
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind) from error


def chat_of(body: Mapping[str, Any]) -> ChatRequest:
    """Make a chat request of an object that is one; errors as of `parse_chat`."""
    chat = typed(body, ChatBody)
    check_together(body)
    for index, message in enumerate(chat.messages):
        if message.content is None and message.role != "assistant":
            where = f"messages[{index}].content"
            raise InvalidRequest(f"{where}: a {message.role} message needs a string or a list of parts", param=where)
    media = list(_media(chat.messages))
    return ChatRequest(
        body=body,
        model=chat.model,
        stream=bool(chat.stream),
        messages=tuple(chat.messages),
        modalities=frozenset({"text", *(kind for kind, _ in media)}),
        media_bytes=sum(size for _, size in media),
        media_parts=len(media),
        tool_count=len(chat.tools or ()),
        structured=chat.response_format is not None and chat.response_format.type != "text",
        max_output=chat.max_completion_tokens or chat.max_tokens,
        demands=tuple(dict.fromkeys(demands_of(body))),
        unknown=len(body.keys() - _CHAT_FIELDS),
    )


def chat_schema(ref_template: str = "#/components/schemas/{name}") -> dict[str, Any]:
    """Describe what `parse_chat` demands, as JSON Schema components by name; the request is "ChatBody"."""
    return msgspec.json.schema_components([ChatBody], ref_template=ref_template)[1]


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if part.text)


def _media(messages: list[Message]) -> Iterator[tuple[str, int]]:
    """Yield the modality and the body's bytes of each part that is not text."""
    for message in messages:
        if not isinstance(message.content, list):
            continue
        for part in message.content:
            if part.type == "image_url" or part.image_url is not None:
                url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
                yield "image", len(url) if isinstance(url, str) else 0
            elif part.type == "input_audio" or part.input_audio is not None:
                data = (part.input_audio or {}).get("data")
                yield "audio", len(data) if isinstance(data, str) else 0


_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>.*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_TYPES: Final = re.compile(r"`([a-z |]+)`")
_WORDS: Final = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "an object",
    "str": "a string",
}
_MAX_ECHO: Final = 200


def _refusal(message: str, kind: type[msgspec.Struct]) -> InvalidRequest:
    """Turn msgspec's message into ours: "Expected `int | null`, got `str` - at `$.n`"."""
    found = _WHERE.fullmatch(message)
    what, path = (found["what"], found["path"] or "") if found else (message, "")
    if missing := _MISSING.fullmatch(what):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        return InvalidRequest(f"{path} is missing", param=path)
    if unknown := _UNKNOWN.fullmatch(what):
        path = f"{path}.{unknown['name'][:_MAX_ECHO]}" if path else unknown["name"][:_MAX_ECHO]
        return Unsupported(f"{path}: there is no such field here", param=path)
    if what.startswith("Invalid enum value"):
        what = f"{what[:_MAX_ECHO]}, one of {', '.join(choices(kind, path))} is expected"
    what = _TYPES.sub(_in_words, what)
    return InvalidRequest(f"{path}: {what[:1].lower()}{what[1:]}", param=path or None)


def _in_words(types: re.Match[str]) -> str:
    names = types[1].split(" | ")
    return " or ".join(_WORDS.get(name, name) for name in names if name != "null" or len(names) == 1)


def _kind(value: object) -> str:
    match value:
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "null"


def _depth(value: object) -> int:
    """Count the levels of nesting, without recursion."""
    depth = 0
    level: list[object] = [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
