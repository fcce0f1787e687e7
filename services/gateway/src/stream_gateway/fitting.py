"""Making a conversation fit a candidate's context window; most fit without anybody being asked.

With a byte-level tokenizer a text has at most as many tokens as bytes. So a request whose bytes, with the chat
template's and the answer's share, stay below the window fits for certain, and the summarizer is not called.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
import orjson

from stream_core.api_keys import FULL
from stream_core.deployment import TierConfig
from stream_core.errors import InvalidRequest
from stream_core.grpc_client import open_channel
from stream_core.grpc_tracing import call_attributes
from stream_core.openai.models import CHAT, ChatRequest
from stream_core.rpc import summarizer_pb2, summarizer_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.trace_context import metadata
from stream_core.tracing import Kind, step
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.settings import GatewaySettings

_FIT: Final = "stream.v1.Summarizer/Fit"
TEMPLATE_TOKENS: Final = 256
"""What a chat template may add: a default system prompt, tool instructions, role marks."""
MEDIA_TOKENS: Final = 2_048
"""What one image or audio clip counts for when its model's own count is not known."""
MAX_SPANS: Final = 12
"""Ranges of condensed messages that the header names; of more the last one, and dots."""
_ENDLESS: Final = 2**31
BYTES_PER_TOKEN: Final = 4
"""Of ordinary text: the estimate while the summarizer is away."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a request is."""

    at_most: int
    """Tokens, bounded from above."""
    about: int
    """Tokens, estimated."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request as it may be sent to a candidate."""

    body: Mapping[str, Any]
    note: str = ""
    """What was done, in a few words; empty when nothing was."""
    context: str = ""
    """What was condensed, with numbers, for the header x-stream-context; empty when nothing was."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """It does not fit, not even condensed."""

    tokens: int
    window: int
    exact: bool
    summarizer_away: bool = False
    forbidden: bool = False
    """Whether it might fit condensed, and the caller or the key forbids that."""

    def words(self, model: str) -> str:
        """Say both numbers."""
        about = "" if self.exact else "about "
        away = ", and nobody can condense it: the summarizer is away" if self.summarizer_away else ""
        if self.forbidden:
            away = ", and it may not be condensed (x-stream-context: full, or a setting of the key)"
        return (
            f"the conversation has {about}{self.tokens:,} tokens, and the context window of '{model}' has "
            f"{self.window:,} tokens for prompt and answer together{away}"
        )


def measure(chat: ChatRequest, json_bytes: int) -> Size:
    """Bound and estimate a request's tokens.

    Args:
        chat: the request.
        json_bytes: length of its JSON, or of its messages and tools as JSON; no text is shorter there than in UTF-8.
    """
    text = max(0, json_bytes - chat.media_bytes)
    media = chat.media_parts * MEDIA_TOKENS
    return Size(text + media + TEMPLATE_TOKENS, text // BYTES_PER_TOKEN + media)


def reserved_output(chat: ChatRequest, tier: TierConfig, window: int) -> int:
    """Tokens to keep free for the answer: what the caller allows, else the tier's share of the window."""
    return chat.max_output or min(tier.reserved_output, window // 4)


class Fitting:
    """The summarizer's client."""

    def __init__(self, target: str, tls: TlsFiles, *, deadline_s: float) -> None:
        """Open the channel, which connects by itself; an empty target asks nobody."""
        self._channel: grpc.aio.Channel | None = None
        self._stub: summarizer_pb2_grpc.SummarizerStub | None = None
        if target:
            self._channel = open_channel(target, tls)
            self._channel.get_state(try_to_connect=True)  # so that the first request does not wait for it
            self._stub = summarizer_pb2_grpc.SummarizerStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._deadline_s = deadline_s

    @classmethod
    def of(cls, settings: GatewaySettings) -> "Fitting":
        """Build it from the settings."""
        return cls(settings.summarizer_target, settings.tls, deadline_s=settings.fit_deadline_ms / 1000)

    async def aclose(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def fit(
        self,
        chat: ChatRequest,
        body_bytes: int,
        tier: TierConfig,
        model: OfferedModel,
        *,
        request_id: str,
        cache_scope: str,
        privacy: str,
        whole: bool = False,
    ) -> Fitted | Unfit:
        """Make a request fit a candidate; never raises for a summarizer that is away or slow.

        Args:
            chat: the request.
            body_bytes: length of its JSON.
            tier: the candidate's.
            model: the candidate.
            request_id: hex.
            cache_scope: within which summaries may be shared.
            privacy: the request's class; a model that summarises sees nothing beyond its own.
            whole: nothing may be condensed.
        """
        if chat.path != CHAT:
            return Fitted(chat.body)  # nothing that could be condensed: the engine knows whether it fits
        window = model.context_window
        reserved = reserved_output(chat, tier, window)
        if measure(chat, body_bytes).at_most + reserved <= window:
            return Fitted(chat.body)
        messages = orjson.dumps(chat.body["messages"])
        tools = orjson.dumps(chat.body["tools"]) if chat.tool_count else b""
        size = measure(chat, len(messages) + len(tools))
        if size.at_most + reserved <= window:
            return Fitted(chat.body)
        request = summarizer_pb2.FitRequest(
            request_id=request_id,
            conversation=summarizer_pb2.Conversation(messages_json=messages, tools_json=tools),
            target=summarizer_pb2.Target(
                tier=tier.name, model=model.id, context_window=window, reserved_output=min(reserved, window)
            ),
            cache_scope=cache_scope,
            privacy=privacy,
            forbid_condensing=whole,
        )
        reply = await self._ask(request)
        if reply is None:
            if size.about + reserved <= window:
                return Fitted(chat.body, "summarizer away, sent whole")
            return Unfit(size.about, window, exact=False, summarizer_away=True, forbidden=whole)
        if not reply.fits:
            return Unfit(reply.tokens_before, window, exact=reply.exact, forbidden=whole)
        if reply.method == summarizer_pb2.METHOD_UNCHANGED:
            return Fitted(chat.body)
        body = {**chat.body, "messages": orjson.loads(reply.messages_json)}
        note = f"condensed {reply.tokens_before} to {reply.tokens_after} tokens"
        return Fitted(body, note, _context(note, reply))

    async def count(self, chat: ChatRequest, tier: TierConfig, model: OfferedModel, *, request_id: str) -> int:
        """Count a request's tokens: exactly where the summarizer has the model's tokenizer, else by estimate.

        Args:
            chat: the request.
            tier: the model's.
            model: whose tokens.
            request_id: hex.
        """
        messages = orjson.dumps(chat.body["messages"])
        tools = orjson.dumps(chat.body["tools"]) if chat.tool_count else b""
        request = summarizer_pb2.FitRequest(
            request_id=request_id,
            conversation=summarizer_pb2.Conversation(messages_json=messages, tools_json=tools),
            # In a window that holds everything there is nothing to be condensed.
            target=summarizer_pb2.Target(tier=tier.name, model=model.id, context_window=_ENDLESS, reserved_output=0),
        )
        reply = await self._ask(request)
        return reply.tokens_before if reply else measure(chat, len(messages) + len(tools)).about

    async def _ask(self, request: summarizer_pb2.FitRequest) -> summarizer_pb2.FitReply | None:
        if self._stub is None:
            return None
        try:
            with step(_FIT, kind=Kind.CLIENT, attributes=call_attributes(_FIT)):
                reply: summarizer_pb2.FitReply = await self._stub.Fit(
                    request, timeout=self._deadline_s, metadata=metadata()
                )
        except grpc.aio.AioRpcError:
            return None
        return reply


def wants_whole(header: str | None) -> bool:
    """Read x-stream-context: "full" forbids condensing, "auto" is the default.

    Raises:
        InvalidRequest: anything else.
    """
    if header not in {None, "auto", FULL}:
        raise InvalidRequest(f"x-stream-context: {(header or '')[:40]!r} is neither 'auto' nor 'full'")
    return header == FULL


def _context(note: str, reply: summarizer_pb2.FitReply) -> str:
    """Write "condensed 900 to 400 tokens; messages 1-16, 18; by extraction; estimated"; indices from 0."""
    spans = [f"{s.first}" if s.first == s.last else f"{s.first}-{s.last}" for s in reply.condensed]
    if len(spans) > MAX_SPANS:
        spans[MAX_SPANS - 1 : -1] = ["..."]
    by = "by a model" if reply.method == summarizer_pb2.METHOD_MODEL else "by extraction"
    return "; ".join([note, f"messages {', '.join(spans)}", by, *([] if reply.exact else ["estimated"])])
