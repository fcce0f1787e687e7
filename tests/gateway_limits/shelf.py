"""A store of accounts in memory, for the page alone: it can refuse, lose answers, or be away."""

import asyncio
from collections.abc import Callable

from stream_gateway.batches.faults import Conflict, StoreAway


class Shelf:
    """See `limits.page.Store`."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[bytes, int]] = {}
        self.connected = True
        self.writes = 0
        self.losing: Callable[[], str] = str
        """Says "before" or "after" of a write whose answer gets lost before or after it is kept; empty: none is."""

    def place(self, name: str) -> str:
        """The name itself."""
        return name

    async def read(self, place: str) -> tuple[bytes, int]:
        """Read."""
        await asyncio.sleep(0)
        if not self.connected:
            raise StoreAway("away")
        return self.kept.get(place, (b"", 0))

    async def write(self, place: str, content: bytes, *, last: int) -> int:
        """Write, compared and set."""
        await asyncio.sleep(0)
        lost = self.losing()
        if not self.connected or lost == "before":
            raise StoreAway("away")
        sequence = self.kept.get(place, (b"", 0))[1]
        if sequence != last:
            raise Conflict("another one")
        self.writes += 1
        self.kept[place] = content, sequence + 1
        await asyncio.sleep(0)
        if lost == "after":
            raise StoreAway("no answer")
        return sequence + 1
