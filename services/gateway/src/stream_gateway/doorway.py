"""A client's connection, before anybody has read a request: how large, how slow and how many they may be.

The server itself bounds none of it: a header without an end would fill the memory, a request of one byte a minute
would hold its connection for ever. Here a request's head has a limit in bytes; head and body must arrive within a time
that grows with what has arrived; connections beyond the most are told so and closed. What the parser refuses (two
lengths, a length and chunks, a folded header) ends the connection: where a request ends is then not certain.
"""

import asyncio
import resource
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stream_core.telemetry import FAULTS
from stream_gateway.errors import error_body
from stream_gateway.settings import GatewaySettings

_OTHER_FILES: Final = 256
"""What the gateway opens beside its clients' connections: engines, the broker, services, files."""
_PATIENCE_S: Final = 1.0
"""The least time between two looks at a slow request."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What a connection may do."""

    max_connections: int
    max_head_bytes: int
    """Request line and headers."""
    slow_s: float
    """What a request may take to arrive, however small."""
    slow_bytes_per_s: int
    """A larger one gets a second more for each so many bytes."""


def door_limits(settings: GatewaySettings) -> DoorLimits:
    """Take the limits from the settings, and from what the system lets this process open, which is asked for first."""
    wanted = settings.max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = settings.max_connections if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)
    return DoorLimits(
        max_connections=min(settings.max_connections, room),
        max_head_bytes=settings.max_header_bytes,
        slow_s=settings.slow_request_s,
        slow_bytes_per_s=settings.slow_bytes_per_s,
    )


class _HeadTooLargeError(Exception):
    """Raised through the parser, which then stops."""


class Doorway(HttpToolsProtocol):
    """One connection.

    Args:
        limits: of all connections.
        rest: uvicorn's.
    """

    def __init__(self, limits: DoorLimits, **rest: Any) -> None:
        super().__init__(**rest)
        self._limits = limits
        self._in_head = True
        self._receiving = False
        self._begun = False
        self._ended = False
        """Whether a request began, or ended, in the bytes that came last."""
        self._head_bytes = 0
        """Of a head that is not complete, as they came."""
        self._head_size = 0
        """Of what the parser has read of it."""
        self._arrived = 0
        self._since = 0.0
        self._too_large = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        most = self._limits.max_connections
        if len(self.connections) > most:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", f"all {most:,} connections are taken")
            return
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count, then parse."""
        if self.transport.is_closing():
            return
        if not self._receiving:
            self._begin()
        self._arrived += len(data)
        self._begun = self._ended = False
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # Of bytes in which one request ended and the next began, how many are whose is not known: they count nothing.
        before = 0 if self._begun else self._head_bytes
        self._head_bytes = before + (0 if self._ended else len(data))
        if self._head_bytes > self._limits.max_head_bytes:
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind another one in the same bytes."""
        super().on_message_begin()
        self._in_head, self._begun = True, True
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        """Count a piece of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the answer; the body may still be on its way."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of a request is here."""
        super().on_message_complete()
        self._in_head, self._receiving = True, False
        self._head_bytes, self._ended = 0, True
        self._stop()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (the server's words say no more)
        """Refuse what is no request, or too large a one."""
        if self._too_large:
            most = self._limits.max_head_bytes
            words = f"request line and headers have more than the {most:,} bytes that are allowed"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", words)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "malformed_request", "this is no valid HTTP request")

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.max_head_bytes:
            self._too_large = True
            raise _HeadTooLargeError

    def _begin(self) -> None:
        self._receiving = True
        self._arrived = 0
        self._since = self.loop.time()
        self._watch(self._limits.slow_s)

    def _watch(self, delay_s: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(delay_s, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Tell a slow request from one that is long, or that we ourselves keep waiting."""
        if self.flow.read_paused:
            self._begin()
            return
        due = self._since + self._limits.slow_s + self._arrived / self._limits.slow_bytes_per_s
        if (left := due - self.loop.time()) > 0:
            self._watch(max(left, _PATIENCE_S))
        elif not self._arrived:
            self.transport.close()  # it never began: there is nothing to answer
        else:
            words = f"the request did not arrive within {self._limits.slow_s:g} s"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", words)

    def _refuse(self, status: HTTPStatus, code: str, words: str) -> None:
        """Close the connection, with an answer unless another one is on its way."""
        FAULTS.count(code)
        self._stop()
        cycle = self.cycle
        free = cycle is None or cycle.response_complete
        if not free and not cycle.response_started and not self.pipeline:
            # Its request is the one that is refused: whoever reads it learns that there is no more of it.
            cycle.disconnected = free = True
            cycle.message_event.set()
        if free:
            kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
            body = error_body(words, type_=kind, code=code)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()
