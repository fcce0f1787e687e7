"""A streamed answer that outlives its worker: the engine's events in, the client's events out. Pure.

state       means                                                event                -> next
FOLLOWING   the first stream; its events pass verbatim           what can't go on     -> REFUSED
                                                                 finish_reason        -> FINISHED
MATCHING    a continuation that may begin with the given text;   other text           -> GOING_ON
            its events are held back                             all of the given     -> DOUBT
DOUBT       it did begin with all of it: an echo, or the model   settle(echo)         -> GOING_ON, FINISHED
            says the same again; `settle` tells
GOING_ON    a continuation; its events pass, rewritten           what can't go on     -> REFUSED
                                                                 finish_reason        -> FINISHED
REFUSED     a tool call, reasoning, an error, or an event that   finish_reason        -> FINISHED
            this reader does not understand came: the text
            alone does not carry it over. Events still pass
FINISHED    the finish_reason is out; usage and end may follow   "[DONE]"             -> COMPLETE
COMPLETE    "[DONE]" is out

After a break, `go_on` leads from FOLLOWING, MATCHING, DOUBT or GOING_ON to MATCHING or GOING_ON, and what was held
back is dropped: it was never sent. From FINISHED, `ending` completes the answer. From REFUSED nothing leads on.

Rewritten means: id, model and created are those of the first stream, its role is not said twice, the given text is
cut off where the engine says it again, usage is that of the whole answer, and the chunks with the finish_reason and
with the usage carry `"stream": {"continued": 1}`, the number of workers that took over. With `"usage": "estimated"`
in it, total_tokens is right and its two parts are split by counting events.
"""

import io
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

import orjson

from stream_core.openai.sse import DONE, data_of
from stream_gateway.backends.continued_chunks import (
    Chunk,
    Head,
    Tokens,
    read_chunk,
    read_head,
    write_event,
)
from stream_gateway.backends.continued_pattern import learn

_PREFIX: Final = b"data: {"
_LESSONS: Final = 4
"""Forms of events that are learnt: the first may name the role as well. Where all differ, learning is in vain."""


def _unknown(_: bytes) -> str:
    """Before a form is known."""
    return ""


class State(Enum):
    """See the module."""

    FOLLOWING = auto()
    MATCHING = auto()
    DOUBT = auto()
    GOING_ON = auto()
    FINISHED = auto()
    REFUSED = auto()
    COMPLETE = auto()


class Continuation:
    """One streamed answer of one choice, over all the workers that it takes.

    Attributes:
        state: see the module.
        continued: workers that took over so far.
        deltas: chunks with text that were sent; a token each on most engines, several on some.
        prompt: tokens of the caller's own prompt; None while unknown.
        textual: whether all that was sent is text, which can be measured.
        usage_sent: whether the usage of the finished answer was sent.
    """

    def __init__(self) -> None:
        self.state = State.FOLLOWING
        self.continued = 0
        self.deltas = 0
        self.prompt: int | None = None
        self.textual = True
        self.usage_sent = False
        self._head: Head | None = None
        self._role_sent = False
        # A list with a string per token would be ten times the text.
        self._text = io.StringIO()
        self._write = self._text.write
        self._lessons = _LESSONS
        self._text_of: Callable[[bytes], str] = _unknown
        # Of the running continuation:
        self._given = ""
        self._before = 0
        self._echo: bool | None = None
        self._seen = ""
        self._held: list[tuple[Chunk, dict[str, Any]]] = []
        self._waiting: list[bytes] = []
        self._notes: dict[str, str] = {}

    @property
    def given(self) -> str:
        """The text that was sent so far."""
        return self._text.getvalue()

    def feed(self, events: list[bytes]) -> list[bytes]:
        """Take the engine's next events, each whole.

        Returns:
            What the client gets for them; none while they are held back. In state DOUBT, `settle` is due.
        """
        if not self.continued:
            self._follow(events)
            return events
        out: list[bytes] = []
        for event in events:
            if self.state is State.DOUBT:
                self._waiting.append(event)
            else:
                out += self._take(event)
        return out

    def go_on(self, *, prompt: int | None, echo: bool | None) -> None:
        """The worker is lost and another one continues: its events are fed from here on.

        Args:
            prompt: tokens of the caller's prompt, when they were measured.
            echo: whether its engine says the given text again; None when that is not known.
        """
        if self.state in {State.FINISHED, State.REFUSED, State.COMPLETE}:
            raise ValueError(f"an answer in state {self.state.name} does not go on")
        self.continued += 1
        self.prompt = self.prompt if prompt is None else prompt
        self._given, self._before, self._echo = self.given, self.deltas, echo
        self._seen, self._held, self._waiting = "", [], []
        self.state = State.GOING_ON if echo is False or not self._given else State.MATCHING

    def settle(self, *, echo: bool) -> list[bytes]:
        """Answer the doubt.

        Args:
            echo: whether the engine says the given text again.

        Returns:
            What the client gets of the events that were held back.
        """
        if self.state is not State.DOUBT:
            raise ValueError(f"there is no doubt in state {self.state.name}")
        waiting, self._waiting = self._waiting, []
        return self._release(len(self._given) if echo else 0) + self.feed(waiting)

    def ending(self, *, finish: str | None = None, total: int | None = None, exact: bool = True) -> list[bytes]:
        """Complete an answer of which only the end is missing; a worker that counted it has taken over as well.

        Args:
            finish: the finish_reason, unless it was sent.
            total: tokens of prompt and answer, when a usage is due and `prompt` is known.
            exact: whether `total` is.
        """
        mark: dict[str, Any] = {"continued": self.continued + 1}
        chunks: list[dict[str, Any]] = []
        if finish is not None:
            choice = {"index": 0, "delta": {}, "finish_reason": finish}
            chunks.append({"choices": [choice], "stream": mark})
        if total is not None and self.prompt is not None:
            tokens = {"prompt_tokens": self.prompt, "completion_tokens": total - self.prompt, "total_tokens": total}
            mark = mark if exact else {**mark, "usage": "estimated"}
            chunks.append({"choices": [], "usage": tokens, "stream": mark})
        self.state = State.COMPLETE
        names = {"object": "chat.completion.chunk"} | self._names()
        return [*(write_event(names | chunk) for chunk in chunks), DONE]

    def _follow(self, events: list[bytes]) -> None:
        """Read the first stream: the hot path, once per token of every answer."""
        for event in events:
            if text := self._text_of(event):
                self._write(text)
                self.deltas += 1
            else:
                self._read(event)

    def _read(self, event: bytes) -> None:
        """Read an event of another form than those before it."""
        data = event[6:] if event[:7] == _PREFIX else data_of(event)
        if data is None:
            return
        if data == b"[DONE]":
            self.state = State.COMPLETE
            return
        chunk = read_chunk(data)
        if chunk is None:
            self._refuse()
            return
        if self._head is None:
            self._head = read_head(data)
        self._note(chunk)
        if chunk.usage is not None:
            self.prompt = chunk.usage.prompt_tokens
            self.usage_sent = self.state is State.FINISHED
        if self._lessons and (pattern := learn(event, chunk)):
            self._lessons -= 1
            self._text_of = pattern.text_of

    def _note(self, chunk: Chunk) -> None:
        """Remember what the client is told."""
        for choice in chunk.choices:
            delta = choice.delta
            if delta.content:
                self._write(delta.content)
                self.deltas += 1
            if delta.role is not None:
                self._role_sent = True
            if delta.is_more_than_text() or choice.index:
                self._refuse()
            if choice.finish_reason is not None:
                self.state = State.FINISHED
        if chunk.error is not None:
            self._refuse()

    def _refuse(self) -> None:
        self.state = State.REFUSED
        self.textual = False

    def _take(self, event: bytes) -> list[bytes]:
        """Take one event of a continuation."""
        data = data_of(event)
        if data is None:
            return [event]
        if data == b"[DONE]":
            out = self._release(0)
            self.state = State.COMPLETE
            return [*out, event]
        chunk = read_chunk(data)
        if chunk is None:
            out = self._release(0)
            self._refuse()
            return [*out, event]
        if self._head is None:
            self._head = read_head(data)
        raw = orjson.loads(data)
        return self._match(chunk, raw) if self.state is State.MATCHING else self._pass_on(chunk, raw)

    def _match(self, chunk: Chunk, raw: dict[str, Any]) -> list[bytes]:
        self._held.append((chunk, raw))
        self._seen += "".join(choice.delta.content or "" for choice in chunk.choices)
        if self._seen.startswith(self._given):
            if self._echo:
                return self._release(len(self._given))
            self.state = State.DOUBT
            return []
        finished = any(choice.finish_reason is not None for choice in chunk.choices)
        return self._release(0) if finished or not self._given.startswith(self._seen) else []

    def _release(self, cut: int) -> list[bytes]:
        """Let the held events go, without so many characters at their begin."""
        held, self._held, self._seen = self._held, [], ""
        if self.state in {State.MATCHING, State.DOUBT}:
            self.state = State.GOING_ON
        out: list[bytes] = []
        for chunk, raw in held:
            for choice, said in zip(chunk.choices, raw["choices"], strict=True):
                text = choice.delta.content
                if cut and text:
                    choice.delta.content = said["delta"]["content"] = text[cut:]
                    cut -= min(cut, len(text))
                    self._cut_logprobs(said, choice.delta.content)
            out += self._pass_on(chunk, raw)
        return out

    def _cut_logprobs(self, said: dict[str, Any], rest: str) -> None:
        """Keep the log-probabilities of what is left of a chunk."""
        tokens = (said.get("logprobs") or {}).get("content")
        if not tokens:
            return
        kept: list[dict[str, Any]] = []
        left = rest
        while left and tokens and left.endswith(tokens[-1]["token"] or "\0"):
            left = left.removesuffix(tokens[-1]["token"])
            kept.insert(0, tokens.pop())
        said["logprobs"] = {**said["logprobs"], "content": kept}
        if left:
            self._notes["logprobs"] = "incomplete"

    def _pass_on(self, chunk: Chunk, raw: dict[str, Any]) -> list[bytes]:
        """Rewrite one chunk of a continuation, and note what it says."""
        raw |= self._names()
        speaks = not raw["choices"] or chunk.usage is not None or chunk.error is not None
        for choice, said in zip(chunk.choices, raw["choices"], strict=True):
            if self._role_sent:
                said["delta"].pop("role", None)
            speaks = speaks or any(said["delta"].values()) or choice.finish_reason is not None
        self._note(chunk)
        if any(choice.finish_reason is not None for choice in chunk.choices):
            raw["stream"] = {"continued": self.continued, **self._notes}
        if chunk.usage is not None:
            self.usage_sent = self.state is State.FINISHED
            self._total(raw, chunk.usage)
        return [write_event(raw)] if speaks else []

    def _total(self, raw: dict[str, Any], part: Tokens) -> None:
        """Make a continuation's usage that of the whole answer: the engine counts the given text as prompt."""
        mark: dict[str, Any] = {"continued": self.continued, **self._notes}
        if self._given:
            total = part.prompt_tokens + part.completion_tokens
            if self.prompt is None:
                # Several tokens may have come in one event, but seldom: without a measurement this is the best guess.
                answer = min(total, self._before + part.completion_tokens)
                mark["usage"] = "estimated"
            else:
                answer = total - self.prompt
            usage = raw["usage"]
            usage |= {"prompt_tokens": total - answer, "completion_tokens": answer, "total_tokens": total}
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
                details["cached_tokens"] = min(details["cached_tokens"], total - answer)
        else:
            self.prompt = part.prompt_tokens
        if self.usage_sent:
            raw["stream"] = mark

    def _names(self) -> dict[str, Any]:
        if self._head is None:
            return {}
        told = {"id": self._head.id, "created": self._head.created, "model": self._head.model}
        return {name: value for name, value in told.items() if value}
