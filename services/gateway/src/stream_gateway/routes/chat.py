"""POST /v1/chat/completions: plain ASGI, since every token of every user passes here."""

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from stream_core.errors import InvalidRequest, RemoteError, StreamError, UpstreamRejected, UpstreamUnavailable
from stream_core.ids import new_id, to_hex
from stream_core.openai.models import chat_schema, parse_chat
from stream_gateway.auth import Keyring, Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.errors import Headers, Reply, error_event, framework_body, reply_to
from stream_gateway.feedback import Answered, RecentAnswers
from stream_gateway.lifeline import ClientGone, Lifeline, Running
from stream_gateway.pipeline import Asked, Begun, Pipeline, Trail
from stream_gateway.stream import (
    Outcome,
    read_body,
    route_headers,
    send_comment,
    send_reply,
    send_stream,
    send_whole,
    settle,
    start_stream,
    watch_client,
)
from stream_gateway.telemetry import Stopwatch, log_request

PATH: Final = "/v1/chat/completions"
EVENTS: Final = "text/event-stream"
_log = logging.getLogger(__name__)
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE: Final = 512
_HEADERS: Final = {
    "x-stream-tier": "The tier that answers; left out while a stream waits and another one may still answer",
    "x-stream-model": "Its model, likewise",
    "x-stream-cluster": "Whose worker answers; left out on a tier without clusters, and while a stream waits",
    "x-stream-reason": "Why, and what else befell the request",
    "x-request-id": "Of this request",
}


class UnsupportedMediaType(InvalidRequest):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"
    status_hint = 415


class ChatRoute:
    """The endpoint."""

    def __init__(
        self,
        *,
        keyring: Keyring,
        registry: Registry,
        pipeline: Pipeline,
        running: Running,
        max_body_bytes: int,
        recent: RecentAnswers | None = None,
    ) -> None:
        """Use these parts."""
        self._keyring = keyring
        self._registry = registry
        self._pipeline = pipeline
        self._running = running
        self._max_body_bytes = max_body_bytes
        self._recent = recent or RecentAnswers()
        self.closing = False
        """Set when the gateway drains: what runs is finished, what comes is refused."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["method"] != "POST":
            body = framework_body(405, f"{scope['method'][:20]} is not allowed here, POST is")
            reply = Reply(405, [(b"content-type", b"application/json"), (b"allow", b"POST")], body)
            await send_reply(send, reply, [(b"x-request-id", to_hex(new_id()).encode("ascii"))])
            return
        exchange = _Exchange(receive, send)
        with self._running.enter() as lifeline:
            try:
                await self._serve(exchange, scope["headers"], lifeline)
            except asyncio.CancelledError:
                cause = lifeline.caught()
                if cause is None:
                    raise
                await exchange.fail(cause)
            except Exception as error:  # noqa: BLE001  (the edge: whatever it is, the client gets an answer)
                await exchange.fail(error)
        exchange.charge(self._pipeline)
        exchange.log()
        exchange.remember(self._recent)

    async def _serve(self, exchange: "_Exchange", headers: Iterable[tuple[bytes, bytes]], lifeline: Lifeline) -> None:
        exchange.principal = self._keyring.authenticate(headers)
        if self.closing:
            raise UpstreamUnavailable("this gateway is shutting down: try again, another one answers")
        fields = dict(headers)
        _demand_json(fields.get(b"content-type"))
        body = await read_body(exchange.receive, _content_length(fields), self._max_body_bytes)
        watcher = asyncio.create_task(watch_client(exchange.receive, lifeline))
        try:
            asked = Asked(
                request_id=exchange.request_id,
                principal=exchange.principal,
                chat=parse_chat(body),
                body_bytes=len(body),
                privacy=_text(fields.get(b"x-stream-privacy")),
                trace=_trace(fields),
                tell=exchange.tell,
            )
            del body
            exchange.stream = asked.chat.stream
            async with self._registry.hold() as generation:
                begun = await self._pipeline.begin(asked, generation, exchange.trail)
                del asked  # a long answer must not keep a large question in memory
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

    def __init__(self, receive: Receive, send: Send) -> None:
        self.receive = receive
        self.request_id = new_id()
        self.principal: Principal | None = None
        self.stream = False
        self.trail = Trail()
        self._send = send
        self._hex = to_hex(self.request_id)
        self._stopwatch = Stopwatch()
        self._outcome = Outcome()
        self._ended = "complete"

    async def tell(self, words: str) -> None:
        """Keep a client that waits for a stream informed; one that waits for a whole answer just waits."""
        if not self.stream:
            return
        if not self._outcome.status:
            # The headers leave now: they say what is known, and a comment says the rest when it is known.
            trail = self.trail if self.trail.certain else Trail()
            known = Trail(trail.tier, trail.model, choice=words)
            await start_stream(self._send, EVENTS, self._headers(known), self._outcome)
        await send_comment(self._send, words, self._outcome)

    async def answer(self, begun: Begun) -> None:
        """Send an answer that has begun."""
        self._stopwatch.first_token()
        streamed = begun.answer.content_type.startswith(EVENTS)
        if self._outcome.status:
            if not streamed:
                raise RemoteError(f"the engine answers with {begun.answer.content_type[:80]!r}, not {EVENTS!r}")
            trail = self.trail
            where = f"{trail.tier}/{trail.model}" + (f" on {trail.cluster}" if trail.cluster else "")
            await send_comment(self._send, f"answered by {where}: {trail.reason}", self._outcome)
        if streamed:
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
            event = error_event(error, self._hex)
            await self._send({"type": "http.response.body", "body": event})
            return
        reply = reply_to(error, self._hex)
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
        )

    def charge(self, pipeline: Pipeline) -> None:
        """Tell what it used."""
        self._outcome.dollars = pipeline.ended(self.request_id, self._outcome.usage, self._outcome.events)

    def remember(self, recent: RecentAnswers) -> None:
        """Let the caller judge the answer later."""
        if self.principal is not None and self._outcome.status == 200:  # noqa: PLR2004
            recent.note(self._hex, Answered(self.principal.id, self.trail.tier, self.trail.model))

    def _headers(self, trail: Trail | None = None) -> Headers:
        headers = route_headers(self._hex, trail or self.trail)
        headers.append((b"openai-processing-ms", str(round(self._stopwatch.total_ms)).encode("ascii")))
        return headers


def openapi_path() -> dict[str, Any]:
    """Describe the endpoint for the OpenAPI document."""
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    texts = {
        400: "The request is malformed; `param` names the field",
        401: "No valid API key",
        403: "The key, or the request's privacy class, does not allow it",
        404: "No such model",
        413: "The body is too large",
        415: "The body is not JSON",
        429: "A limit was reached",
        502: "The engine failed in the middle of an answer",
        503: "No model can answer now; `retry-after` says when to come back",
        504: "The engine gave no sign of life",
    }
    answer = {
        "description": "The engine's answer, verbatim. A stream that waits for a worker begins with SSE comments; if "
        "none becomes ready within the limit, it ends with an error event, code `worker_not_ready`.",
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {
        "post": {
            "tags": ["chat"],
            "summary": "Answer a conversation",
            "operationId": "chat_completions",
            "security": [{"HTTPBearer": []}],
            "parameters": [
                {
                    "name": "x-stream-privacy",
                    "in": "header",
                    "required": False,
                    "description": "Privacy class of this request; it can only raise the key's own.",
                    "schema": {"type": "string"},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
            },
            "responses": {"200": answer, **{str(code): {"description": text, **error} for code, text in texts.items()}},
        }
    }


def openapi_schemas() -> dict[str, Any]:
    """Schemas that `openapi_path` refers to."""
    return chat_schema()


def _content_length(fields: dict[bytes, bytes]) -> int | None:
    length = fields.get(b"content-length", b"")
    return int(length) if length.isdigit() else None


def _demand_json(content_type: bytes | None) -> None:
    if content_type is None:
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
        said = content_type[:80].decode("latin-1")
        raise UnsupportedMediaType(f"content-type: application/json is expected, not {said!r}")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1").strip()


def _trace(fields: dict[bytes, bytes]) -> dict[str, str]:
    """Pass a valid trace context on, https://www.w3.org/TR/trace-context/."""
    parent = fields.get(b"traceparent", b"")
    if not _TRACEPARENT.fullmatch(parent):
        return {}
    trace = {"traceparent": parent.decode("ascii")}
    state = fields.get(b"tracestate", b"")
    if state and len(state) <= _MAX_TRACESTATE and state.isascii():
        trace["tracestate"] = state.decode("ascii")
    return trace
