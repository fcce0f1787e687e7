"""A conversation as typed records that keep every message's own JSON, and the units that must not be split. Pure.

A unit is one message, or an assistant message with tool calls together with everything up to the last tool message
that answers it: engines refuse a call without its result, and a result without its call.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stream_core.errors import InvalidRequest, RequestTooLarge

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
INSTRUCTING: Final = frozenset({"system", "developer"})


class Call(msgspec.Struct, frozen=True):
    """A tool call as the assistant wrote it."""

    id: str
    name: str
    arguments: str


class Medium(msgspec.Struct, frozen=True):
    """A part of a message that is not text."""

    kind: str  # image_url, input_audio, file, or what the client calls it
    format: str  # of audio: wav, mp3, ...; else empty
    json_bytes: int  # size of the part as JSON, base64 data included


class Message(msgspec.Struct, frozen=True):
    """One message."""

    index: int  # in the request
    role: str
    raw: bytes  # its JSON, as the client wrote it
    text: str  # its text parts, joined by line ends
    calls: tuple[Call, ...] = ()
    answers: str = ""  # the id of the call that a tool message answers
    media: tuple[Medium, ...] = ()


class Unit(msgspec.Struct, frozen=True):
    """Messages first..last, both inclusive, that stay or go together."""

    first: int
    last: int


class Conversation(msgspec.Struct, frozen=True):
    """What the client sent."""

    messages: tuple[Message, ...]
    units: tuple[Unit, ...]
    tools: bytes  # JSON; empty when there are none

    def of(self, unit: Unit) -> tuple[Message, ...]:
        """Return the unit's messages."""
        return self.messages[unit.first : unit.last + 1]


class _Function(msgspec.Struct):
    name: str = ""
    arguments: Any = ""


class _Custom(msgspec.Struct):
    name: str = ""
    input: str = ""


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function | None = None
    custom: _Custom | None = None


class _Audio(msgspec.Struct):
    format: str = ""


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    input_audio: _Audio | None = None


class _Wire(msgspec.Struct):
    role: str
    content: str | list[msgspec.Raw] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None


_raws: Final = msgspec.json.Decoder(list[msgspec.Raw])
_wire: Final = msgspec.json.Decoder(_Wire)
_part: Final = msgspec.json.Decoder(_Part)
_tools: Final = msgspec.json.Decoder(list[dict[str, Any]])


def parse(messages_json: bytes, tools_json: bytes = b"", *, max_messages: int) -> Conversation:
    """Read a request's "messages" and "tools".

    Args:
        messages_json: a JSON array of OpenAI messages.
        tools_json: a JSON array; empty or "null" when there are none.
        max_messages: limit.

    Raises:
        InvalidRequest: not JSON, or not a conversation; `param` names the field.
        RequestTooLarge: more messages than the limit; the text gives both numbers.
    """
    raws: list[msgspec.Raw] = _decode(_raws, messages_json, "messages")
    if not raws:
        raise InvalidRequest("messages: empty, at least 1 message is wanted", param="messages")
    if len(raws) > max_messages:
        raise RequestTooLarge(f"messages: {len(raws):,} messages, at most {max_messages:,}", param="messages")
    messages = tuple(_message(index, bytes(raw)) for index, raw in enumerate(raws))
    tools = tools_json.strip()
    if tools in {b"", b"null", b"[]"}:
        return Conversation(messages, _units(messages), b"")
    _decode(_tools, tools, "tools")
    return Conversation(messages, _units(messages), tools)


def _decode(decoder: Any, data: bytes, field: str) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(_placed(str(error), field), param=field) from error
    except RecursionError as error:
        raise InvalidRequest(f"{field}: nested too deeply", param=field) from error


def _placed(error: str, field: str) -> str:
    """Turn msgspec's "Expected ... - at `$.role`" into "messages[3].role: expected ..."."""
    what, _, place = error.partition(" - at `$")
    return f"{field}{place.rstrip('`')}: {what[:1].lower()}{what[1:]}"


def _message(index: int, raw: bytes) -> Message:
    field = f"messages[{index}]"
    wire: _Wire = _decode(_wire, raw, field)
    if wire.role not in ROLES:
        raise InvalidRequest(f"{field}.role: {wire.role[:32]!r} is none of {', '.join(ROLES)}", param=f"{field}.role")
    texts: list[str] = []
    media: list[Medium] = []
    if isinstance(wire.content, str):
        texts.append(wire.content)
    else:
        for position, piece in enumerate(wire.content or ()):
            part: _Part = _decode(_part, bytes(piece), f"{field}.content[{position}]")
            if part.type in {"text", "refusal"}:
                texts.append(part.text or part.refusal)
            else:
                sound = part.input_audio.format if part.input_audio else ""
                media.append(Medium(part.type, sound, len(bytes(piece))))
    if wire.refusal:
        texts.append(wire.refusal)
    calls = [_call(call) for call in wire.tool_calls or ()]
    answers = wire.tool_call_id or ""
    if wire.function_call is not None:  # the older form: one call, answered by its name
        calls.append(Call(f"function:{wire.function_call.name}", wire.function_call.name, _text(wire.function_call)))
    if wire.role == "function":
        answers = f"function:{wire.name or ''}"
    if wire.role not in {"tool", "function"}:
        answers = ""
    return Message(index, wire.role, raw, "\n".join(texts), tuple(calls), answers, tuple(media))


def _call(call: _Call) -> Call:
    if call.custom is not None:
        return Call(call.id, call.custom.name, call.custom.input)
    function = call.function or _Function()
    return Call(call.id, function.name, _text(function))


def _text(function: _Function) -> str:
    arguments = function.arguments
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _units(messages: Sequence[Message]) -> tuple[Unit, ...]:
    """One pass: `reach[i]` is the last message that message i must stay with."""
    reach = list(range(len(messages)))
    open_calls: dict[str, int] = {}  # call id -> the latest assistant message that made it
    for position, message in enumerate(messages):
        for call in message.calls:
            open_calls[call.id] = position
        if message.role in {"tool", "function"}:
            # An answer without a call stays with what stands before it: apart from that it has no meaning.
            caller = open_calls.get(message.answers, max(position - 1, 0))
            reach[caller] = max(reach[caller], position)
    units: list[Unit] = []
    first = end = 0
    for position in range(len(messages)):
        if position > end:
            units.append(Unit(first, end))
            first = end = position
        end = max(end, reach[position])
    units.append(Unit(first, end))
    return tuple(units)
