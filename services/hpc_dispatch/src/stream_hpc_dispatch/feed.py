"""The pool's newest snapshot, handed to any number of watchers; a slow one skips what it missed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from stream_core.rpc import hpc_dispatch_pb2

Snapshot = Callable[[], hpc_dispatch_pb2.Pool]


class PoolFeed:
    """Publishes a snapshot whenever it differs from the last one, at most one each `interval_s`.

    Args:
        snapshot: draws the pool as it is, without revision.
        revision: of the first one; later ones count up. It should lie above those of an earlier run of the program,
            so that a gateway sees revisions grow across a restart.
        interval_s: seconds between two.
    """

    def __init__(self, snapshot: Snapshot, *, revision: int, interval_s: float) -> None:
        self._snapshot = snapshot
        self._interval_s = interval_s
        self._latest = snapshot()
        self._latest.revision = revision
        self._stale = asyncio.Event()
        self._news = asyncio.Event()
        self._closed = False

    def changed(self) -> None:
        """Say that the pool may have changed; cheap."""
        self._stale.set()

    def publish(self) -> None:
        """Draw a snapshot now and give it to the watchers if it is a new one."""
        self._stale.clear()
        pool = self._snapshot()
        pool.revision = self._latest.revision
        if pool == self._latest:
            return
        pool.revision += 1
        self._latest = pool
        self._wake()

    async def run(self) -> None:
        """Publish changes for ever: the first at once, those that follow closely together."""
        while True:
            await self._stale.wait()
            self.publish()
            await asyncio.sleep(self._interval_s)

    async def watch(self) -> AsyncIterator[hpc_dispatch_pb2.Pool]:
        """Yield the newest snapshot, then each newer one; ends when the feed is closed."""
        seen = -1
        while True:
            news = self._news
            if self._latest.revision > seen:
                seen = self._latest.revision
                yield self._latest
            elif self._closed:
                return
            else:
                await news.wait()

    def close(self) -> None:
        """End all watches, after the newest snapshot."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
