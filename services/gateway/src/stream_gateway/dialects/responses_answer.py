"""A chat answer, as OpenAI's Responses API gives it: whole, or event by event. Pure.

response.created, response.in_progress, then for each item
response.output_item.added, its deltas and what they add up to, response.output_item.done,
then response.completed or response.incomplete; or, where it breaks, error and response.failed
"""

from typing import Any, Final

import orjson

from stream_core.errors import StreamBroken
from stream_gateway.dialects.chat_chunks import Choice, Chunk, Count, ToolCall, read_event, read_whole
from stream_gateway.errors import engines_words, reply_to

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PARTS: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning": {"type": "reasoning_text", "text": ""},
}
_EVENTS: Final = {"text": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}


class ResponsesAnswer:
    """See `Translation`.

    Args:
        response: the object that is sent, so far: its id, and what was asked.
    """

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._hex = response["id"].removeprefix("resp_")
        self._number = 0
        self._begun = False
        self._open = ""
        """Kind of the item that has begun: text, refusal, reasoning, or a tool call's place."""
        self._finish: str | None = None
        self._count: Count | None = None

    def feed(self, events: list[bytes]) -> list[bytes]:
        """Take chunks."""
        made: list[bytes] = []
        for event in events:
            if (chunk := read_event(event)) is not None:
                made += self._take(chunk)
        return made

    def end(self) -> list[bytes]:
        """Close the item and the response."""
        if self._finish is None:
            raise StreamBroken("the engine's stream ended without a reason")
        why = _INCOMPLETE.get(self._finish)
        made = [*self._begin(), *self._close("incomplete" if why else "completed")]
        status = "incomplete" if why else "completed"
        self.response |= {
            "status": status,
            "incomplete_details": {"reason": why} if why else None,
            "usage": _usage(self._count or Count()),
        }
        made.append(self._event(f"response.{status}", response=self.response))
        return made

    def whole(self, body: bytes) -> bytes:
        """Turn an answer that is not streamed: it is a stream of one chunk."""
        answer, choice, said = read_whole(body)
        one = Choice(delta=said, finish_reason=choice.finish_reason or "stop", logprobs=choice.logprobs)
        self._take(Chunk(answer.model, [one], answer.usage))
        self.end()
        return orjson.dumps(self.response)

    def broken(self, error: Exception, request_id: str) -> bytes:
        """The error event, and the response as it failed."""
        told = engines_words(reply_to(error, request_id).body)
        code, words = str(told.get("code") or "server_error"), told["message"]
        event = self._event("error", code=code, message=words, param=told.get("param"))
        self.response |= {"status": "failed", "error": {"code": code, "message": words}}
        return event + self._event("response.failed", response=self.response)

    def _take(self, chunk: Chunk) -> list[bytes]:
        self.response["model"] = chunk.model or self.response["model"]
        self._count = chunk.usage or self._count
        made = self._begin()
        for choice in chunk.choices:
            if (said := choice.delta) is not None:
                if said.thought:
                    made += self._say("reasoning", said.thought)
                if said.content:
                    made += self._say("text", said.content, _logprobs(choice))
                if said.refusal:
                    made += self._say("refusal", said.refusal)
                for position, call in enumerate(said.tool_calls or ()):
                    made += self._call(call, position)
            self._finish = choice.finish_reason or self._finish
        return made

    def _say(self, kind: str, words: str, logprobs: list[Any] | None = None) -> list[bytes]:
        made: list[bytes] = []
        if self._open != kind:
            part = {name: [] if value == [] else value for name, value in _PARTS[kind].items()}
            item: dict[str, Any] = {"status": "in_progress", "content": []}
            if kind == "reasoning":
                item = {"id": self._id("rs"), "type": "reasoning", "summary": [], "encrypted_content": None, **item}
            else:
                item = {"id": self._id("msg"), "type": "message", "role": "assistant", **item}
            made += self._into(kind, item)
            made.append(self._event("response.content_part.added", **self._place(), content_index=0, part=part))
            item["content"] = [part]
        part = self._item["content"][0]
        part["refusal" if kind == "refusal" else "text"] += words
        more: dict[str, Any] = {}
        if kind == "text":
            more = {"logprobs": logprobs or []}
            part["logprobs"] += logprobs or []
        name = f"response.{_EVENTS[kind]}.delta"
        made.append(self._event(name, **self._place(), content_index=0, delta=words, **more))
        return made

    def _call(self, call: ToolCall, position: int) -> list[bytes]:
        place = call.index if call.index is not None else position
        made: list[bytes] = []
        if self._open != f"tool {place}":
            if call.function is None or not call.function.name:
                raise StreamBroken("the engine sends a tool call's rest after another item has begun")
            item = {
                "id": self._id("fc"),
                "type": "function_call",
                "status": "in_progress",
                "call_id": call.id or f"call_{self._hex[:20]}{place}",
                "name": call.function.name,
                "arguments": "",
            }
            made += self._into(f"tool {place}", item)
        if call.function is not None and call.function.arguments:
            self._item["arguments"] += call.function.arguments
            name = "response.function_call_arguments.delta"
            made.append(self._event(name, **self._place(), delta=call.function.arguments))
        return made

    @property
    def _item(self) -> dict[str, Any]:
        item: dict[str, Any] = self.response["output"][-1]
        return item

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._hex}{len(self.response['output']):02x}"

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item["id"], "output_index": len(self.response["output"]) - 1}

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        return [self._event(f"response.{word}", response=self.response) for word in ("created", "in_progress")]

    def _into(self, kind: str, item: dict[str, Any]) -> list[bytes]:
        """Begin an item, after the one before it."""
        made = self._close("completed")
        self._open = kind
        self.response["output"].append(item)
        index = len(self.response["output"]) - 1
        return [*made, self._event("response.output_item.added", output_index=index, item=item)]

    def _close(self, status: str) -> list[bytes]:
        if not self._open:
            return []
        kind, self._open = self._open, ""
        item = self._item
        item["status"] = status
        made: list[bytes] = []
        if kind in _EVENTS:
            part = item["content"][0]
            said = {"refusal": part["refusal"]} if kind == "refusal" else {"text": part["text"]}
            if kind == "text":
                said["logprobs"] = part["logprobs"]
            made.append(self._event(f"response.{_EVENTS[kind]}.done", **self._place(), content_index=0, **said))
            made.append(self._event("response.content_part.done", **self._place(), content_index=0, part=part))
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            made.append(self._event("response.function_call_arguments.done", **self._place(), **said))
        index = len(self.response["output"]) - 1
        made.append(self._event("response.output_item.done", output_index=index, item=item))
        return made

    def _event(self, type_: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        data = orjson.dumps({"type": type_, "sequence_number": number, **fields})
        return b"event: " + type_.encode() + b"\ndata: " + data + b"\n\n"


def _logprobs(choice: Choice) -> list[Any]:
    found = choice.logprobs.get("content") if choice.logprobs else None
    return found if isinstance(found, list) else []


def _usage(count: Count) -> dict[str, Any]:
    return {
        "input_tokens": count.prompt_tokens,
        "input_tokens_details": {"cached_tokens": count.cached, "cache_write_tokens": 0},
        "output_tokens": count.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": count.reasoned},
        "total_tokens": count.prompt_tokens + count.completion_tokens,
    }
