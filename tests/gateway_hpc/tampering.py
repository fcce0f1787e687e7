"""A relay that can't be trusted: between worker and real relay, it does to frames what a test tells it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import chain

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from stream_core.wire.frames import Frame, split

Tamper = Callable[[Frame], list[bytes]]
"""What goes on in place of a frame that a worker sent: nothing, itself, something else, several."""

_MAX = 8 * 1024 * 1024


def honest(frame: Frame) -> list[bytes]:
    """Pass it on."""
    return [frame.wire]


class TamperingRelay:
    """Its `tamper` may be changed at any time; `seen` holds every message of both ways."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.tamper: Tamper = honest
        self.seen: list[bytes] = []
        self.url = ""

    async def handle(self, worker: ServerConnection) -> None:
        """One worker's connection."""
        async with connect(self._target + "/v1/worker", max_size=_MAX, compression=None) as relay:

            async def up() -> None:
                async for message in worker:
                    assert isinstance(message, bytes)
                    self.seen.append(message)
                    if changed := b"".join(chain.from_iterable(self.tamper(frame) for frame in split(message, _MAX))):
                        await relay.send(changed)

            async def down() -> None:
                async for message in relay:
                    assert isinstance(message, bytes)
                    self.seen.append(message)
                    await worker.send(message)

            tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def tampering_relay(target: str) -> AsyncIterator[TamperingRelay]:
    """Run one in front of the relay at `target`."""
    relay = TamperingRelay(target)
    async with serve(relay.handle, "127.0.0.1", 0, max_size=_MAX, compression=None) as server:
        relay.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield relay
