"""A relay that does what a test says, on real sockets: it welcomes workers, and shows what they do, in order."""

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from stream_core.wire import payloads
from stream_core.wire.frames import Frame, FrameType, encode, split
from stream_worker.uplink import Uplink

LIMIT_S = 10.0


class Seen(NamedTuple):
    """One event: at which relay, and what: "hello", "closed", or "refused"."""

    relay: str
    what: str


class ScriptedRelay:
    """One relay.

    Args:
        name: in its events.
        events: shared with other relays, so that their order shows.
    """

    def __init__(self, name: str, events: list[Seen]) -> None:
        self.name = name
        self.events = events
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.welcomes = True
        self.leaves_at_once = False
        self.port = 0
        self.connection: ServerConnection | None = None
        self._server: Server | None = None
        self._changed = asyncio.Event()

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen; again on the same port after `kill`."""
        self._server = await serve(self._serve, "127.0.0.1", self.port, ssl=tls, compression=None)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """Vanish as a crash does: the port is closed, connections are reset."""
        if self._server is not None:
            self._server.close(close_connections=False)
            for connection in self._server.connections:
                connection.transport.abort()

    async def say(self, type_: FrameType) -> None:
        """Send WELCOME or GOAWAY."""
        await self.send(_WORDS[type_])

    async def send(self, message: bytes) -> None:
        """Send frames of a gateway."""
        if self.connection is None:
            raise RuntimeError("no worker is here")
        await self.connection.send(message)

    async def saw(self, what: str, count: int = 1) -> None:
        """Wait until this relay has seen something so many times."""
        async with asyncio.timeout(LIMIT_S):
            while self.events.count(Seen(self.name, what)) < count:
                self._changed.clear()
                await self._changed.wait()

    async def next_frame(self, type_: FrameType) -> Frame:
        """The next frame of that type; others before it are dropped."""
        async with asyncio.timeout(LIMIT_S):
            while (frame := await self.frames.get()).type is not type_:
                pass
            return frame

    async def stop(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                for frame in split(message):
                    if frame.type is FrameType.HELLO:
                        self.connection = connection
                        self._note("hello")
                        if self.welcomes:
                            await connection.send(_WORDS[FrameType.WELCOME])
                        if self.leaves_at_once:
                            return
                    else:
                        self.frames.put_nowait(frame)
        self._note("closed")

    def _note(self, what: str) -> None:
        self.events.append(Seen(self.name, what))
        self._changed.set()


_WORDS = {
    FrameType.WELCOME: encode(
        FrameType.WELCOME, payloads.dump(payloads.Welcome(relay="scripted", max_frame=1 << 20, max_message=1 << 20))
    ),
    FrameType.GOAWAY: encode(FrameType.GOAWAY, payloads.dump(payloads.Goaway("draining"))),
}


class Recorder:
    """The uplink's handler: keeps what it is told."""

    def __init__(self) -> None:
        self.connected: asyncio.Queue[bool] = asyncio.Queue()
        self.faults: list[str] = []

    def on_connected(self, *, resend: bool) -> None:
        self.connected.put_nowait(resend)

    def on_frame(self, frame: Frame) -> None:
        """No gateway speaks in these tests."""

    def on_fault(self, kind: str, detail: str) -> None:
        self.faults.append(kind)

    async def next(self) -> bool:
        """Wait for the next relay; whether all is to be sent again."""
        async with asyncio.timeout(LIMIT_S):
            return await self.connected.get()


@contextlib.asynccontextmanager
async def scripted_relay(
    name: str = "relay", events: list[Seen] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedRelay]:
    """Run one until the block ends."""
    relay = ScriptedRelay(name, [] if events is None else events)
    await relay.start(tls)
    try:
        yield relay
    finally:
        await relay.stop()


@contextlib.asynccontextmanager
async def running(relays: list[str], *, ca_file: str = "", jitter: float = 0.0) -> AsyncIterator[Recorder]:
    """A worker's uplink to these relays until the block ends; it begins with the first one."""
    recorder = Recorder()
    hello = encode(FrameType.HELLO, payloads.dump(payloads.Hello(lease="00" * 16, ticket="ticket")))
    uplink = Uplink(relays, hello, recorder, ca_file=ca_file, backoff=(0.01, 0.05), jitter=lambda: jitter)
    task = asyncio.create_task(uplink.run())
    try:
        yield recorder
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def server_tls(certificate: str, key: str) -> ssl.SSLContext:
    """The relay's side of wss://."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def logged(log: pytest.LogCaptureFixture, pattern: str, count: int = 1) -> list[str]:
    """Wait until so many messages match."""
    heard = asyncio.Event()
    handler = logging.Handler()
    handler.emit = lambda _: heard.set()
    logging.getLogger().addHandler(handler)
    try:
        async with asyncio.timeout(LIMIT_S):
            while len(found := [message for message in log.messages if re.search(pattern, message)]) < count:
                heard.clear()
                await heard.wait()
            return found
    finally:
        logging.getLogger().removeHandler(handler)
