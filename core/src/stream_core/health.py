"""Probes and numbers: `/livez`, `/readyz` and `/metrics`, and a server for them on a port of its own.

Who can reach that port may read all numbers. On a port that clients use, `/metrics` is there only while the program
listens on loopback alone, has no port for it, and the request did not come through a proxy (`open_here`).
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from stream_core.errors import ConfigError
from stream_core.metrics import REGISTRY
from stream_core.telemetry import FAULTS

_MAX_REQUEST = 8 * 1024
_READ_TIMEOUT_S = 5.0

_PROXIED: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})

Readiness = Callable[[], str | None]
"""None when ready, else the reason why not, in words."""

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of all that is served here; the version is that of Prometheus' text format."""


def respond(path: str, ready: Readiness) -> tuple[int, bytes]:
    """Answer a probe: (HTTP status, body of type `PLAIN`).

    `/livez` is 200 as long as the program answers at all; `/readyz` is 503 with the reason while it is not ready;
    `/metrics` has all that the program counts.
    """
    match path:
        case "/livez" | "/health":
            return 200, b"ok\n"
        case "/readyz":
            reason = ready()
            return (200, b"ok\n") if reason is None else (503, reason.encode() + b"\n")
        case "/metrics":
            return 200, REGISTRY.text() + FAULTS.metrics()
        case _:
            return 404, b"not found\n"


def open_here(host: str, metrics_port: int | None, headers: Iterable[str]) -> bool:
    """Whether `/metrics` may be answered on a port that clients use.

    Args:
        host: that the program listens on.
        metrics_port: the port that is meant for it; None: there is none.
        headers: names of the request's, lower case.
    """
    if metrics_port is not None or not _PROXIED.isdisjoint(headers):
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.asynccontextmanager
async def serve_metrics(host: str, port: int | None, ready: Readiness) -> AsyncIterator[dict[str, int]]:
    """Serve probes and numbers on a port of their own until the block ends; None serves nothing.

    Yields:
        What the ready file says of it.

    Raises:
        ConfigError: the port is taken, or the host no address of this machine.
    """
    if port is None:
        yield {}
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            taken = await stack.enter_async_context(serve_health(host, port, ready))
        except OSError as error:
            raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}", param="metrics_port") from error
        yield {"metrics_port": taken}


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
