"""What plays a Service with an address: connections go to the ready pods in turn, and stay where they went."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

_CHUNK = 64 * 1024


class ServiceAddress:
    """One port of one Service.

    Args:
        endpoints: (address, port) of the pods that are ready now.
    """

    def __init__(self, endpoints: Callable[[], Sequence[tuple[str, int]]]) -> None:
        self._endpoints = endpoints
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, address, port)

    async def close(self) -> None:
        """Stop, and cut what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            ways = self._endpoints()
            if not ways:
                return
            self._turn += 1
            there, back = await asyncio.open_connection(*ways[self._turn % len(ways)])
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                back.close()
        except (OSError, asyncio.CancelledError):
            pass  # as a network: who was connected sees its end
        finally:
            writer.close()
            self._tasks.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one way until its end, then say so to the other side."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
