"""Chunks of a streamed answer as a continuation must read them: strictly, so that nothing is lost unseen. Pure."""

from typing import Any, Final

import msgspec
import orjson


class Tokens(msgspec.Struct, frozen=True):
    """Usage as an engine tells it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Delta(msgspec.Struct, forbid_unknown_fields=True):
    """All that a delta may hold; another key with something in it is nothing that the text alone carries over."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    def is_more_than_text(self) -> bool:
        """Whether the text alone does not carry over what is said here."""
        return bool(self.tool_calls or self.function_call or self.refusal or self.reasoning_content or self.reasoning)


class Choice(msgspec.Struct):
    """What one event adds to one answer."""

    delta: Delta
    index: int = 0
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    """One event."""

    choices: list[Choice]
    usage: Tokens | None = None
    error: Any = None


class Head(msgspec.Struct):
    """What a continuation takes over from the first stream."""

    id: str = ""
    model: str = ""
    created: int = 0


decode_chunk: Final = msgspec.json.Decoder(Chunk).decode
"""Payload of an event -> chunk; raises one of `UNREADABLE`. `read_chunk` reads more and costs more."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, orjson.JSONDecodeError)


def read_chunk(data: bytes) -> Chunk | None:
    """Read an event's payload; deltas may have keys that nobody knows, as long as nothing is in them.

    Returns:
        None when it is not a chunk, or has something in it that is not known.
    """
    try:
        return decode_chunk(data)
    except UNREADABLE:
        return _tolerant(data)


def read_head(data: bytes) -> Head:
    """Read what names a stream, as far as it is there."""
    try:
        return msgspec.json.decode(data, type=Head)
    except UNREADABLE:
        return Head()


def write_event(chunk: dict[str, Any]) -> bytes:
    """Write a chunk as an event."""
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _tolerant(data: bytes) -> Chunk | None:
    try:
        raw = orjson.loads(data)
        for choice in raw["choices"]:
            choice["delta"] = {key: value for key, value in choice["delta"].items() if value not in (None, "", [], {})}
        return msgspec.convert(raw, Chunk)
    except (*UNREADABLE, TypeError, KeyError, AttributeError):
        return None
