"""Probes and counters: `/livez`, `/readyz` and `/metrics`, and a server for programs that have no HTTP of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from stream_core.telemetry import FAULTS

_MAX_REQUEST = 8 * 1024
_READ_TIMEOUT_S = 5.0

Readiness = Callable[[], str | None]
"""None when ready, else the reason why not, in words."""

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of all that is served here; the version is that of Prometheus' text format."""


def respond(path: str, ready: Readiness) -> tuple[int, bytes]:
    """Answer a probe: (HTTP status, body of type `PLAIN`).

    `/livez` is 200 as long as the program answers at all; `/readyz` is 503 with the reason while it is not ready;
    `/metrics` has the faults that the program has counted.
    """
    match path:
        case "/livez" | "/health":
            return 200, b"ok\n"
        case "/readyz":
            reason = ready()
            return (200, b"ok\n") if reason is None else (503, reason.encode() + b"\n")
        case "/metrics":
            return 200, FAULTS.metrics()
        case _:
            return 404, b"not found\n"


@contextlib.asynccontextmanager
async def serve_health(host: str, port: int, ready: Readiness) -> AsyncIterator[int]:
    """Serve probes until the block ends.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        ready: asked on each `/readyz`; must not block.

    Yields:
        The port.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
            parts = request.split(b" ", 2)
            status, body = respond(parts[1].decode("ascii", "replace").partition("?")[0], ready)
            phrase = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
            writer.write(
                f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {PLAIN}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (TimeoutError, IndexError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a broken probe is the prober's problem; the program lives on
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_MAX_REQUEST)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
