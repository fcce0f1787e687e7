"""A TCP gate before an engine: passes so much of an answer and holds the rest, so that a death has a known place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Gate:
    """Where it listens; what it holds back."""

    marker: bytes
    count: int
    url: str = ""
    held: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def gate(engine_url: str, marker: bytes, count: int) -> AsyncIterator[Gate]:
    """Pass the answer to a connection's first POST up to the so-manieth marker, and nothing after it.

    Args:
        engine_url: base, with its port.
        marker: bytes of the answer, as they are on the wire.
        count: of them.
    """
    made = Gate(marker, count)
    target = urlsplit(engine_url)

    open_: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_engine = await asyncio.open_connection(target.hostname, target.port)
        open_.extend((writer, to_engine))
        asked = asyncio.Event()
        async with asyncio.TaskGroup() as both:
            both.create_task(_questions(reader, to_engine, asked))
            both.create_task(_answers(upstream, writer, asked, made))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for writer in open_:
            writer.close()
        await server.wait_closed()


async def _questions(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if data.startswith(b"POST "):
                asked.set()
            writer.write(data)
    writer.close()


async def _answers(
    upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event, gate: Gate
) -> None:
    seen = b""
    with contextlib.suppress(ConnectionError):
        while data := await upstream.read(65536):
            if not asked.is_set():
                writer.write(data)
                continue
            before, seen = len(seen), seen + data
            pieces = seen.split(gate.marker)
            if len(pieces) > gate.count:
                end = len(gate.marker.join(pieces[: gate.count]) + gate.marker)
                writer.write(seen[before:end])
                gate.held.set()
                return
            writer.write(data)
    writer.close()
