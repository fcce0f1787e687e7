"""An endpoint that asks a model: plain ASGI, since every token of every user passes here, whatever API it speaks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from stream_core import trace_context
from stream_core.deployment import PolicyConfig
from stream_core.errors import InvalidRequest, RemoteError, StreamError, UpstreamRejected, UpstreamUnavailable
from stream_core.ids import new_id, to_hex
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.content import Said, may_be_shown
from stream_gateway.dialects.contract import Dialect, Spoken, Translation
from stream_gateway.errors import Headers
from stream_gateway.feedback import Answered, RecentAnswers
from stream_gateway.fitting import wants_whole
from stream_gateway.ledger.noting import fields_of
from stream_gateway.ledger.writer import Ledger
from stream_gateway.lifeline import ClientGone, Lifeline, Running
from stream_gateway.meters import pace_of
from stream_gateway.phases import Phases
from stream_gateway.pipeline import Asked, Begun, Pipeline, Trail
from stream_gateway.request_trace import RequestTrace, parent_of
from stream_gateway.stream import (
    MOST_KEPT,
    Outcome,
    read_body,
    route_headers,
    send_comment,
    send_reply,
    send_stream,
    send_translated,
    send_whole,
    send_whole_translated,
    settle,
    start_stream,
    watch_client,
)
from stream_gateway.telemetry import Stopwatch, log_request

EVENTS: Final = "text/event-stream"
_log = logging.getLogger(__name__)
_TIMING: Final = b"x-stream-timing"
"""A request that has it as "1" is told in the header server-timing where its first token's time went."""


class MethodNotAllowed(InvalidRequest):
    """Another method than the endpoint's."""

    code = "method_not_allowed"
    status_hint = 405


class NotOffered(InvalidRequest):
    """A part of an API that is not there, beside parts that are."""

    code = "not_found"
    status_hint = 404


class UnsupportedMediaType(InvalidRequest):
    """The body is not declared as JSON, or is compressed."""

    code = "unsupported_media_type"
    status_hint = 415


@dataclass(frozen=True, slots=True)
class Means:
    """What all endpoints that ask a model share."""

    entrance: Entrance
    registry: Registry
    pipeline: Pipeline
    running: Running
    max_body_bytes: int
    ledger: Ledger
    recent: RecentAnswers = field(default_factory=RecentAnswers)
    trace_content: bool = False
    """Whether spans may hold texts of the least confidential class."""


class AskRoute:
    """One endpoint.

    Args:
        means: shared by all.
        dialect: which API it speaks.
        unlisted: why a GET, which lists answers in the API, is 404; empty where the API has none.
    """

    def __init__(self, means: Means, dialect: Dialect, unlisted: str = "") -> None:
        self._means = means
        self._dialect = dialect
        self._unlisted = unlisted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["method"] != "POST":
            request_id = to_hex(new_id())
            if self._unlisted and scope["method"] == "GET":
                reply = self._dialect.reply(NotOffered(self._unlisted), request_id)
            else:
                words = f"{scope['method'][:20]} is not allowed here, POST is"
                reply = self._dialect.reply(MethodNotAllowed(words), request_id)
                reply.headers.append((b"allow", b"GET, POST" if self._unlisted else b"POST"))
            await send_reply(send, reply, [(b"x-request-id", request_id.encode("ascii"))])
            return
        exchange = _Exchange(receive, send, self._dialect)
        with self._means.running.enter() as lifeline:
            try:
                await self._serve(exchange, scope["path"], scope["headers"], lifeline)
            except asyncio.CancelledError:
                cause = lifeline.caught()
                if cause is None:
                    raise
                await exchange.fail(cause)
            except Exception as error:  # noqa: BLE001  (the edge: whatever it is, the client gets an answer)
                await exchange.fail(error)
        exchange.charge(self._means.pipeline)
        exchange.note(self._means.ledger)
        exchange.log()
        exchange.remember(self._means.recent)

    async def _serve(
        self, exchange: "_Exchange", path: str, headers: Iterable[tuple[bytes, bytes]], lifeline: Lifeline
    ) -> None:
        exchange.principal = await self._means.entrance.authenticate(self._dialect.credentials(headers))
        if self._means.running.closing:
            raise UpstreamUnavailable("this gateway is shutting down: try again, another one answers")
        fields = dict(headers)
        exchange.admitted(path, fields)
        demand_plain(fields.get(b"content-encoding"))
        demand_json(fields.get(b"content-type"))
        body = await read_body(exchange.receive, _content_length(fields), self._means.max_body_bytes)
        watcher = asyncio.create_task(watch_client(exchange.receive, lifeline))
        try:
            privacy = _text(fields.get(b"x-stream-privacy"))
            spoken = await self._dialect.read(body, exchange.principal, privacy, exchange.request_id)
            asked = Asked(
                request_id=exchange.request_id,
                principal=exchange.principal,
                chat=spoken.chat,
                body_bytes=len(body),
                privacy=privacy if spoken.privacy is None else spoken.privacy,
                trace=trace_context.outgoing(),
                tell=exchange.tell,
                phases=exchange.phases,
                whole=wants_whole(_text(fields.get(b"x-stream-context"))),
            )
            exchange.keep(body)
            del body
            exchange.understood(spoken)
            exchange.phases.lap("read")
            async with self._means.registry.hold() as generation:
                begun = await self._means.pipeline.begin(asked, generation, exchange.trail)
                if self._means.trace_content:
                    exchange.show(asked, generation.deployment.policy)
                del asked, spoken  # a long answer must not keep a large question in memory
                try:
                    await exchange.answer(begun)
                    watcher.cancel()  # an answered client may leave
                    await settle(begun)
                finally:
                    await begun.answer.aclose()
        finally:
            watcher.cancel()


class _Exchange:
    """One request and what has become of it."""

    def __init__(self, receive: Receive, send: Send, dialect: Dialect) -> None:
        self.receive = receive
        self._dialect = dialect
        self._translation: Translation | None = None
        self._prompt: bytes | None = None
        self._keep: Callable[[str], Awaitable[None]] | None = None
        self.request_id = new_id()
        self.principal: Principal | None = None
        self.stream = False
        self.trail = Trail()
        self._send = send
        self._hex = to_hex(self.request_id)
        self._stopwatch = Stopwatch()
        self.phases = Phases()
        self._trace = RequestTrace()
        self._timed = False
        self._said: Said | None = None
        self._outcome = Outcome()
        self._ended = "complete"

    def admitted(self, path: str, fields: dict[bytes, bytes]) -> None:
        """It is known who asks: from here on the request may be traced."""
        self.phases.lap("auth")
        self._timed = fields.get(_TIMING) == b"1"
        self._trace.begin(f"POST {path}", path, self._hex, parent_of(fields), self.phases)

    def show(self, asked: Asked, policy: PolicyConfig) -> None:
        """Let the trace hold what is asked and answered, where the request's class allows that."""
        if self._trace.recorded and may_be_shown(policy, self.trail.privacy):
            self._said = self._trace.show(asked.chat.body)

    def keep(self, body: bytes) -> None:
        """Keep what is said for the ledger, where the project wants that."""
        if self.principal is not None and self.principal.keeps_content:
            self._prompt, self._outcome.kept = body[:MOST_KEPT], bytearray()

    def understood(self, spoken: Spoken) -> None:
        """The request was read."""
        self.stream = spoken.chat.stream
        self._translation = spoken.translation
        self._keep = spoken.keep

    async def tell(self, words: str) -> None:
        """Keep a client that waits for a stream informed; one that waits for a whole answer just waits."""
        if not self.stream:
            return
        if not self._outcome.status:
            # The headers leave now: they say what is known, and a comment says the rest when it is known.
            trail = self.trail if self.trail.certain else Trail()
            known = Trail(trail.tier, trail.model, choice=words, levels=self.trail.levels)
            await start_stream(self._send, EVENTS, self._headers(known), self._outcome)
        await send_comment(self._send, words, self._outcome)

    async def answer(self, begun: Begun) -> None:
        """Send an answer that has begun."""
        self._stopwatch.first_token()
        self._trace.first_token(self.phases)
        self._outcome.pace = pace_of(self.trail)
        if self._said is not None:
            self._said.take(begun.first)
            begun = replace(begun, rest=self._said.through(begun.rest))
        streamed = begun.answer.content_type.startswith(EVENTS)
        if not streamed and (self._outcome.status or (self._translation is not None and self.stream)):
            raise RemoteError(f"the engine answers with {begun.answer.content_type[:80]!r}, not {EVENTS!r}")
        if self._outcome.status:
            trail = self.trail
            where = f"{trail.tier}/{trail.model}" + (f" on {trail.cluster}" if trail.cluster else "")
            await send_comment(self._send, f"answered by {where}: {trail.reason}", self._outcome)
            if self._timed:  # its headers are gone
                await send_comment(self._send, f"server-timing: {self.phases.text()}", self._outcome)
        if self._translation is not None:
            sending = send_translated if self.stream else send_whole_translated
            keep = partial(self._keep, self.trail.privacy) if self._keep else None
            await sending(self._send, begun, self._headers(), self._outcome, self._translation, keep)
        elif streamed:
            await send_stream(self._send, begun, self._headers(), self._outcome)
        else:
            await send_whole(self._send, begun, self._headers(), self._outcome)

    async def fail(self, error: Exception) -> None:
        """Tell the client, as far as it can still be told."""
        if self._outcome.complete:
            return
        match error:
            case ClientGone():
                self._ended = "client_gone"
                return
            case UpstreamRejected():
                self._ended = f"{error.code}_{error.status}"
            case StreamError():
                self._ended = error.code
            case _:
                self._ended = "internal_error"
                _log.error("request failed", exc_info=error, extra={"request_id": self._hex})
        if self._outcome.status:
            # The headers said 200: an error event, and no "[DONE]", tell that the answer is not complete.
            speaker = self._dialect.event if self._translation is None else self._translation.broken
            event = speaker(error, self._hex)
            await self._send({"type": "http.response.body", "body": event})
            return
        reply = self._dialect.reply(error, self._hex)
        self._outcome.status = reply.status
        await send_reply(self._send, reply, self._headers())

    def log(self) -> None:
        """Write the request's line."""
        log_request(
            self._hex,
            key=self.principal.id if self.principal else "",
            stream=self.stream,
            trail=self.trail,
            outcome=self._outcome,
            stopwatch=self._stopwatch,
            ended=self._ended,
            phases=self.phases,
        )
        if self._said is not None:
            self._trace.answered(self._said)
        self._trace.end(self.trail, self._outcome, self._ended, stream=self.stream)

    def charge(self, pipeline: Pipeline) -> None:
        """Tell what it used."""
        sent = self._outcome
        sent.spent = pipeline.ended(self.request_id, sent.usage, sent.events, bytes_out=sent.bytes_out)

    def note(self, ledger: Ledger) -> None:
        """Write it into the ledger; of nobody's request there is only the log."""
        if self.principal is not None:
            said = fields_of(
                self._hex,
                self.principal,
                self.trail,
                self._outcome,
                self._stopwatch,
                ended=self._ended,
                stream=self.stream,
                prompt=self._prompt,
            )
            ledger.note(self.request_id, said)

    def remember(self, recent: RecentAnswers) -> None:
        """Let the caller judge the answer later."""
        if self.principal is not None and self._outcome.status == 200:  # noqa: PLR2004
            recent.note(self._hex, Answered(self.principal.id, self.trail.tier, self.trail.model, self.trail.privacy))

    def _headers(self, trail: Trail | None = None) -> Headers:
        trail = trail or self.trail
        headers = route_headers(self._hex, trail)
        headers += self._dialect.limit_headers(trail.levels)
        headers.append((b"openai-processing-ms", str(round(self._stopwatch.total_ms)).encode("ascii")))
        if self._timed and self.phases.laps:
            headers.append(self.phases.header())
        return headers


def _content_length(fields: dict[bytes, bytes]) -> int | None:
    length = fields.get(b"content-length", b"")
    return int(length) if length.isdigit() else None


def demand_plain(content_encoding: bytes | None) -> None:
    """Refuse a body that is compressed: what it would become when it is unpacked, nobody can know beforehand."""
    if content_encoding is not None and content_encoding.strip().lower() not in {b"", b"identity"}:
        said = content_encoding[:40].decode("latin-1")
        raise UnsupportedMediaType(f"content-encoding: {said!r} is not possible here, send the body as it is")


def demand_json(content_type: bytes | None) -> None:
    """Refuse a body that is declared as something else than JSON."""
    if content_type is None:
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        said = content_type[:80].decode("latin-1")
        raise UnsupportedMediaType(f"content-type: application/json is expected, not {said!r}")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1").strip()
