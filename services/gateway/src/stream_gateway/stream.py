"""An answer on its way to the client: plain ASGI, one write per batch, nothing waits to make a batch larger."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from starlette.types import Receive, Send

from stream_core.errors import RemoteError, RequestTooLarge
from stream_core.openai.chunks import Usage, tells_usage_alone, usage_of, usage_of_body
from stream_core.openai.sse import is_done
from stream_gateway.dialects.contract import Translation
from stream_gateway.errors import Headers, Reply
from stream_gateway.lifeline import ClientGone, Lifeline
from stream_gateway.limits.meter import Spent
from stream_gateway.pipeline import Begun, Trail

MOST_KEPT: Final = 256 * 1024
"""Bytes of a prompt or an answer that the ledger takes where contents are wanted: an entry must fit a message."""
_LAST_EVENTS: Final = 4
_MAX_HEADER: Final = 200
_SETTLE_S: Final = 0.5
_EVENTS: Final = "text/event-stream"

STREAM_HEADERS: Final[Headers] = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Timer(Protocol):
    """Measures the pace of a stream."""

    def took(self, events: int) -> None:
        """A batch of so many events was there."""
        ...


class Outcome:
    """What has been sent so far."""

    __slots__ = ("bytes_out", "complete", "events", "kept", "pace", "spent", "status", "usage")

    def __init__(self) -> None:
        self.status = 0
        """0 until the headers are out."""
        self.bytes_out = 0
        self.events = 0
        """Of a stream, as the engine sent them."""
        self.usage: Usage | None = None
        self.pace: Timer | None = None
        """Told of each batch of a stream after the first; None: nobody measures it."""
        self.kept: bytearray | None = None
        """What was sent, as far as the ledger takes it, where the project wants that; None: it is not kept."""
        self.spent = Spent()
        """What it cost, once it is over."""
        self.complete = False

    def sent(self, body: bytes) -> None:
        """Note what the client gets."""
        self.bytes_out += len(body)
        if self.kept is not None and len(self.kept) < MOST_KEPT:
            self.kept += body[: MOST_KEPT - len(self.kept)]


def route_headers(request_id: str, trail: Trail) -> Headers:
    """Say who answers and why, in ASCII that every proxy lets pass."""
    headers: Headers = [(b"x-request-id", request_id.encode("ascii"))]
    if trail.tier:
        headers += [(b"x-stream-tier", header_safe(trail.tier)), (b"x-stream-model", header_safe(trail.model))]
    if trail.cluster:
        headers.append((b"x-stream-cluster", header_safe(trail.cluster)))
    if trail.context:
        headers.append((b"x-stream-context", header_safe(trail.context)))
    if trail.reason:
        headers.append((b"x-stream-reason", header_safe(trail.reason)))
    return headers


def header_safe(text: str) -> bytes:
    """Cut a text to what a header may hold: printable ASCII, not too long."""
    return printable(text[:_MAX_HEADER])


def printable(text: str) -> bytes:
    """Write a text as one line of printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode("ascii")


async def watch_client(receive: Receive, lifeline: Lifeline) -> None:
    """Cut the request when its client leaves. The request's body has been read already."""
    while (await receive())["type"] != "http.disconnect":
        pass
    lifeline.cut(ClientGone())


async def read_body(receive: Receive, declared: int | None, limit: int) -> bytes:
    """Read a request's body, never more than the limit of it.

    Raises:
        RequestTooLarge: with both numbers.
        ClientGone: it left in the middle.
    """
    if declared is not None and declared > limit:
        raise RequestTooLarge(f"the body has {declared:,} bytes, at most {limit:,} are allowed")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestTooLarge(f"the body has {size:,} bytes or more, at most {limit:,} are allowed")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_reply(send: Send, reply: Reply, headers: Headers) -> None:
    """Send a whole answer. What the server has not read of the request's body, it then reads and drops."""
    length = (b"content-length", str(len(reply.body)).encode("ascii"))
    await send({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, length, *headers]})
    await send({"type": "http.response.body", "body": reply.body})


async def start_stream(send: Send, content_type: str, headers: Headers, outcome: Outcome) -> None:
    """Send the head of a stream of events."""
    kind = (b"content-type", content_type.encode("latin-1", "replace"))
    outcome.status = 200
    await send({"type": "http.response.start", "status": 200, "headers": [kind, *STREAM_HEADERS, *headers]})


async def send_comment(send: Send, words: str, outcome: Outcome) -> None:
    """Send a line that clients skip, and that keeps proxies from closing the connection."""
    body = b": " + printable(words) + b"\n\n"
    outcome.bytes_out += len(body)
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def send_stream(send: Send, begun: Begun, headers: Headers, outcome: Outcome) -> None:
    """Forward an answer that is a stream of events, verbatim, until its end; its errors pass through.

    `settle` is due after it.
    """
    if not outcome.status:
        await start_stream(send, begun.answer.content_type, headers, outcome)
    last: deque[bytes] = deque(maxlen=_LAST_EVENTS)
    batch: list[bytes] | None = begun.first
    more = True
    try:
        while more:
            more = batch is not None and not is_done(batch[-1])
            last.extend(batch or ())
            if begun.hides_usage and batch is not None:
                batch = [event for event in batch if not tells_usage_alone(event)]
            body = b"".join(batch or ())
            outcome.sent(body)
            outcome.events += len(batch or ())
            # "[DONE]" and the end of the body leave together; what the engine says after it is nobody's business.
            if body or not more:
                await send({"type": "http.response.body", "body": body, "more_body": more})
            if more:
                batch = await anext(begun.rest, None)
                if outcome.pace is not None and batch:
                    outcome.pace.took(len(batch))
    finally:
        outcome.usage = usage_of(last)
    outcome.complete = True


async def send_translated(
    send: Send,
    begun: Begun,
    headers: Headers,
    outcome: Outcome,
    translation: Translation,
    keep: Callable[[], Awaitable[None]] | None,
) -> None:
    """Send a stream of events in another API's form; its errors pass through. `settle` is due after it."""
    if not outcome.status:
        await start_stream(send, _EVENTS, headers, outcome)
    last: deque[bytes] = deque(maxlen=_LAST_EVENTS)
    batch: list[bytes] | None = begun.first
    try:
        while batch is not None:
            last.extend(batch)
            if body := b"".join(translation.feed(batch)):
                outcome.sent(body)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            outcome.events += len(batch)
            batch = None if is_done(batch[-1]) else await anext(begun.rest, None)
            if outcome.pace is not None and batch:
                outcome.pace.took(len(batch))
    finally:
        outcome.usage = usage_of(last)
    ending = b"".join(translation.end())
    if keep is not None:
        await keep()
    outcome.sent(ending)
    await send({"type": "http.response.body", "body": ending})
    outcome.complete = True


async def settle(begun: Begun) -> None:
    """Let an answer that was sent come to its own end, so that its connection can be used again."""
    with contextlib.suppress(RemoteError, TimeoutError):
        async with asyncio.timeout(_SETTLE_S):
            await anext(begun.rest, None)


async def send_whole(send: Send, begun: Begun, headers: Headers, outcome: Outcome) -> None:
    """Send an answer that is one body, when all of it is there; its errors pass through before anything is sent."""
    body = await _whole(begun)
    outcome.usage = usage_of_body(body)
    await _send_body(send, body, begun.answer.content_type, headers, outcome)


async def send_whole_translated(
    send: Send,
    begun: Begun,
    headers: Headers,
    outcome: Outcome,
    translation: Translation,
    keep: Callable[[], Awaitable[None]] | None,
) -> None:
    """Send it in another API's form."""
    body = await _whole(begun)
    outcome.usage = usage_of_body(body)
    translated = translation.whole(body)
    if keep is not None:
        await keep()
    await _send_body(send, translated, "application/json", headers, outcome)


async def _whole(begun: Begun) -> bytes:
    return b"".join([*begun.first, *[chunk async for batch in begun.rest for chunk in batch]])


async def _send_body(send: Send, body: bytes, content_type: str, headers: Headers, outcome: Outcome) -> None:
    outcome.status = 200
    outcome.sent(body)
    await send_reply(send, Reply(200, [(b"content-type", content_type.encode("latin-1", "replace"))], body), headers)
    outcome.complete = True
