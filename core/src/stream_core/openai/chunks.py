"""What a gateway reads of an answer: whether it is finished, and what it used. Pure.

Read from the last events of a stream only, never per token.
"""

from collections.abc import Iterable

import msgspec

from stream_core.openai.sse import data_of


class Usage(msgspec.Struct, frozen=True):
    """The engine's own count of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: Usage | None = None


_DECODER = msgspec.json.Decoder(_Chunk)


def is_finished(events: Iterable[bytes]) -> bool:
    """Whether one of these events carries a finish_reason: the model has said all, whatever the stream's end is."""
    chunks = map(_read, events)
    return any(choice.finish_reason is not None for chunk in chunks if chunk for choice in chunk.choices)


def usage_of(events: Iterable[bytes]) -> Usage | None:
    """The last usage that these events carry; None when the engine did not tell it."""
    found = [chunk.usage for chunk in map(_read, events) if chunk and chunk.usage]
    return found[-1] if found else None


def usage_of_body(body: bytes) -> Usage | None:
    """The usage that a whole (not streamed) answer carries."""
    chunk = _decode(body)
    return chunk.usage if chunk else None


def tells_usage_alone(event: bytes) -> bool:
    """Whether an event is the one that `stream_options.include_usage` adds: usage, and no choice."""
    if b'"usage"' not in event or b'"choices"' not in event:
        return False
    chunk = _read(event)
    return chunk is not None and chunk.usage is not None and not chunk.choices


def _read(event: bytes) -> _Chunk | None:
    data = data_of(event)
    return _decode(data) if data else None


def _decode(data: bytes) -> _Chunk | None:
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # "[DONE]", an error event, or a dialect of its own
