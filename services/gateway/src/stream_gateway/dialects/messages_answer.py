"""A chat answer, as Anthropic's API gives it: whole, or event by event. Pure.

message_start, then for each block: content_block_start, content_block_delta ..., content_block_stop,
then message_delta (stop_reason, usage) and message_stop; or, where it breaks, error
"""

from typing import Any, Final

import orjson

from stream_core.errors import StreamBroken
from stream_core.openai.models import MAX_DEPTH
from stream_gateway.dialects.chat_chunks import Choice, Chunk, Count, ToolCall, read_event, read_whole
from stream_gateway.dialects.messages_errors import error_event

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class MessagesAnswer:
    """See `Translation`.

    Args:
        request_id: hex; part of the message's id.
        model: as the client named it, until the engine says which one it is.
        thinking: whether the client wants to see what the model says to itself.
    """

    def __init__(self, request_id: str, model: str, *, thinking: bool) -> None:
        self._id = f"msg_{request_id}"
        self._model = model
        self._thinking = thinking
        self._started = False
        self._blocks = 0
        self._open = ""
        """Kind of the block that has begun: text, thinking, or a tool call's place."""
        self._called = False
        self._finish: Choice | None = None
        self._count = Count()

    def feed(self, events: list[bytes]) -> list[bytes]:
        """Take chunks."""
        made: list[bytes] = []
        for event in events:
            if (chunk := read_event(event)) is not None:
                made += self._take(chunk)
        return made

    def end(self) -> list[bytes]:
        """Close the block and the message."""
        made = [*self._start(), *self._close()]
        if self._finish is None:
            raise StreamBroken("the engine's stream ended without a reason")
        delta = {"stop_reason": _stop_reason(self._finish, called=self._called), "stop_sequence": _met(self._finish)}
        made.append(_event("message_delta", delta=delta, usage=_usage(self._count)))
        made.append(_event("message_stop"))
        return made

    def whole(self, body: bytes) -> bytes:
        """Turn an answer that is not streamed."""
        answer, choice, said = read_whole(body)
        self._model = answer.model or self._model
        content: list[dict[str, Any]] = []
        if said.thought and self._thinking:
            content.append({"type": "thinking", "thinking": said.thought, "signature": ""})
        if text := said.content or said.refusal:
            content.append({"type": "text", "text": text})
        for index, call in enumerate(said.tool_calls or ()):
            arguments = (call.function and call.function.arguments) or "{}"
            content.append(_tool_use(self._call_id(call, index), call, _parsed(arguments)))
        message = self._message(content, answer.usage or Count())
        message["stop_reason"] = _stop_reason(choice, called=bool(said.tool_calls))
        message["stop_sequence"] = _met(choice)
        return orjson.dumps(message)

    def broken(self, error: Exception, request_id: str) -> bytes:
        """The error event."""
        return error_event(error, request_id)

    def _take(self, chunk: Chunk) -> list[bytes]:
        self._model = chunk.model or self._model
        self._count = chunk.usage or self._count
        made = self._start()
        for choice in chunk.choices:
            if (said := choice.delta) is not None:
                if said.thought and self._thinking:
                    made += self._into("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                    made.append(self._delta({"type": "thinking_delta", "thinking": said.thought}))
                if text := said.content or said.refusal:
                    made += self._into("text", {"type": "text", "text": ""})
                    made.append(self._delta({"type": "text_delta", "text": text}))
                for position, call in enumerate(said.tool_calls or ()):
                    made += self._call(call, position)
            if choice.finish_reason is not None:
                self._finish = choice
        return made

    def _call(self, call: ToolCall, position: int) -> list[bytes]:
        place = call.index if call.index is not None else position
        made: list[bytes] = []
        if self._open != f"tool {place}":
            if call.function is None or not call.function.name:
                raise StreamBroken("the engine sends a tool call's rest after another block has begun")
            self._called = True
            made += self._into(f"tool {place}", _tool_use(self._call_id(call, place), call, {}))
        if call.function is not None and call.function.arguments:
            made.append(self._delta({"type": "input_json_delta", "partial_json": call.function.arguments}))
        return made

    def _call_id(self, call: ToolCall, place: int) -> str:
        return call.id or f"toolu_{self._id.removeprefix('msg_')[:20]}{place}"

    def _start(self) -> list[bytes]:
        if self._started:
            return []
        self._started = True
        return [_event("message_start", message=self._message([], self._count))]

    def _into(self, kind: str, block: dict[str, Any]) -> list[bytes]:
        """Begin a block of a kind, unless it is the one that has begun."""
        if self._open == kind:
            return []
        made = self._close()
        self._open = kind
        made.append(_event("content_block_start", index=self._blocks, content_block=block))
        return made

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        self._open = ""
        self._blocks += 1
        return [_event("content_block_stop", index=self._blocks - 1)]

    def _message(self, content: list[dict[str, Any]], count: Count) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(count),
        }


def _usage(count: Count) -> dict[str, int]:
    return {
        "input_tokens": max(0, count.prompt_tokens - count.cached),
        "output_tokens": count.completion_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": count.cached,
    }


def _stop_reason(choice: Choice, *, called: bool) -> str:
    if _met(choice) is not None:
        return "stop_sequence"
    reason = _STOP_REASONS.get(choice.finish_reason or "stop", "end_turn")
    return "tool_use" if called and reason == "end_turn" else reason


def _met(choice: Choice) -> str | None:
    """Give the stop sequence that was met, where the engine tells it."""
    return choice.stop_reason if isinstance(choice.stop_reason, str) and choice.finish_reason == "stop" else None


def _tool_use(id_: str, call: ToolCall, given: object) -> dict[str, Any]:
    name = call.function.name if call.function else None
    return {"type": "tool_use", "id": id_, "name": name or "", "input": given}


def _parsed(arguments: str) -> Any:
    try:
        given = orjson.loads(arguments) if arguments.count("{") + arguments.count("[") <= MAX_DEPTH else None
    except orjson.JSONDecodeError:
        given = None
    # The model wrote no object: the client's own check of its tool's arguments is the place to say so.
    return given if isinstance(given, dict) else {"_unparsed": arguments}


def _event(type_: str, **fields: Any) -> bytes:
    return b"event: " + type_.encode() + b"\ndata: " + orjson.dumps({"type": type_, **fields}) + b"\n\n"
