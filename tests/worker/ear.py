"""What hpc_dispatch hears of one lease, and how it tells its worker to stop: over a real broker, with the real keys."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import nats
from gateway_hpc import lane

from stream_core.wire import subjects
from stream_core.wire.frames import FrameType, split
from stream_core.wire.payloads import Status
from stream_hpc_dispatch.leases import Lease

_LIMIT_S = 30.0


class Ear:
    """Opens every STATUS."""

    def __init__(self, lease: Lease, client: nats.NATS) -> None:
        self._lease = lease
        self._client = client
        self._changed = asyncio.Event()
        self.statuses: list[Status] = []

    def hear(self, message: bytes) -> None:
        """Take one message of the worker."""
        for frame in split(message):
            if frame.type is FrameType.ANNOUNCE:
                self._lease.announce(frame.body)
            elif frame.type is FrameType.STATUS and self._lease.announcement is not None:
                self.statuses.append(self._lease.status(frame))
        self._changed.set()

    async def until(self, fits: Callable[[Status], bool], *, after: int = 0) -> Status:
        """Wait for a STATUS that fits, the earlier ones up to number `after` aside."""
        async with asyncio.timeout(_LIMIT_S):
            while not (found := [status for status in self.statuses[after:] if fits(status)]):
                self._changed.clear()
                await self._changed.wait()
        return found[0]

    async def tell_to_stop(self, now_ms: int) -> None:
        """Send STOP."""
        await self._client.publish(subjects.lease_in(self._lease.id), self._lease.stop_frame(now_ms))
        await self._client.flush()


@contextlib.asynccontextmanager
async def ear(parts: lane.Parts) -> AsyncIterator[Ear]:
    """Listen to the parts' lease until the block ends."""
    client = await nats.connect(parts.nats_url)
    listening = Ear(Lease(parts.lease.id, 0, parts.lease.secret), client)

    async def receive(message) -> None:
        listening.hear(message.data)

    await client.subscribe(subjects.lease_out(parts.lease.id), cb=receive)
    await client.flush()
    try:
        yield listening
    finally:
        await client.close()
