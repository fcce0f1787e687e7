"""A TCP proxy on loopback that keeps every byte, in a thread of its own: what did that hop see?"""

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

    def __init__(self) -> None:
        self.port = 0
        self.sent: list[bytearray] = []
        self.answered: list[bytearray] = []

    def everything(self) -> list[bytes]:
        """Every buffer, both directions."""
        return [bytes(buffer) for buffer in [*self.sent, *self.answered]]

    async def handle(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Proxy one connection until either side closes it."""
        sent, answered = bytearray(), bytearray()
        self.sent.append(sent)
        self.answered.append(answered)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.ensure_future(_pump(reader, far_writer, sent)),
            asyncio.ensure_future(_pump(far_reader, writer, answered)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        writer.close()
        far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            keep += data
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def record_tcp(host: str, port: int) -> Iterator[Recorder]:
    """Proxy to an address until the block ends.

    Yields:
        The recorder; connect to its `port` on 127.0.0.1.
    """
    recorder, ready = Recorder(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
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
