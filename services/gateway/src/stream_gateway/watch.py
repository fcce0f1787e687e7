"""Files that may change while the program runs: looked at now and then, since that works on every file system."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

Stamp = tuple[int, int, int]


class FileWatch:
    """Remembers how a file looked."""

    def __init__(self, path: Path) -> None:
        """Take the file's stamp now: make the watch before you read the file."""
        self._path = path
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether it was written or replaced since the last call; false when it is gone."""
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        return True

    def _stamp(self) -> Stamp | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


async def follow(watch: FileWatch, interval_s: float, reread: Callable[[], Awaitable[None]]) -> None:
    """Call `reread` whenever the file has changed, until cancelled.

    Args:
        watch: made before the file was read.
        interval_s: seconds between two looks.
        reread: must not raise.
    """
    while True:
        await asyncio.sleep(interval_s)
        if watch.changed():
            await reread()
