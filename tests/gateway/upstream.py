"""Upstreams that misbehave: what they send is written down byte by byte."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def whole(status: str, body: bytes = b'{"error":{"message":"from upstream"}}', *headers: bytes) -> bytes:
    """A whole HTTP answer."""
    lines = [
        f"HTTP/1.1 {status}".encode(),
        b"content-type: application/json",
        f"content-length: {len(body)}".encode(),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


@dataclass
class Upstream:
    """A server that sends the same bytes to every POST, and then closes or stays silent."""

    answer: bytes
    silent: bool = False
    """After the answer the connection stays open, without another byte."""
    posts: int = 0
    url: str = ""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The gateway closed a connection on which this server was silent."""

    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks[task] = writer
        task.add_done_callback(self.tasks.pop)

    async def aclose(self) -> None:
        """End all connections."""
        for task, writer in (tasks := dict(self.tasks)).items():
            task.cancel()
            writer.close()  # a task that has not begun yet never will
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            await reader.readexactly(length)
            if head.startswith(b"POST"):
                self.posts += 1
                writer.write(self.answer)
                await writer.drain()
                if self.silent:
                    await reader.read()
                    self.left.set()
            else:
                writer.write(whole("200 OK", b'{"data":[]}', b"connection: close"))
                await writer.drain()


@contextlib.asynccontextmanager
async def upstream(answer: bytes, *, silent: bool = False, port: int = 0) -> AsyncIterator[Upstream]:
    """Run one until the block ends; port 0 takes a free one."""
    made = Upstream(answer, silent)
    server = await asyncio.start_server(made.accept, "127.0.0.1", port)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield made
        finally:
            await made.aclose()
