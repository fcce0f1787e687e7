"""A TCP proxy on loopback, in a thread of its own: it keeps every byte, and can cut the network in between."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Recorder:
    """Bytes by connection and direction.

    Attributes:
        port: where it listens.
        sent: one buffer per connection, what the side that connected sent.
        answered: likewise, what came back.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.port = 0
        self.sent: list[bytearray] = []
        self.answered: list[bytearray] = []

    def cut(self) -> None:
        """Let nothing through, in either direction, until `mend`; sockets stay, as when a cable is pulled."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._open.clear)

    def mend(self) -> None:
        """Let through what waited, and all that follows."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._open.set)

    def drop(self) -> None:
        """Close every connection now, as a server does that is tired of its client; new ones are welcome."""
        if self.loop is not None:
            for writer in list(self._writers):
                self.loop.call_soon_threadsafe(writer.transport.abort)

    def everything(self) -> list[bytes]:
        """Every buffer, both directions."""
        return [bytes(buffer) for buffer in [*self.sent, *self.answered]]

    async def handle(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Proxy one connection until either side closes it."""
        sent, answered = bytearray(), bytearray()
        if self._keep:
            self.sent.append(sent)
            self.answered.append(answered)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer, sent)),
            asyncio.ensure_future(self._pump(far_reader, writer, answered)),
        ]
        self._writers |= {writer, far_writer}
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._writers -= {writer, far_writer}
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        writer.close()
        far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._keep:
                    kept += data
                await self._open.wait()
                writer.write(data)
                await writer.drain()


@contextlib.contextmanager
def record_tcp(host: str, port: int, *, keep: bool = True) -> Iterator[Recorder]:
    """Proxy to an address until the block ends.

    Args:
        host: of the address.
        port: likewise.
        keep: what passes; False only passes it.

    Yields:
        The recorder; connect to its `port` on 127.0.0.1.
    """
    recorder, ready = Recorder(keep=keep), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        recorder.loop = loop
        server = await asyncio.start_server(
            lambda reader, writer: recorder.handle(host, port, reader, writer), "127.0.0.1", 0
        )
        recorder.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
