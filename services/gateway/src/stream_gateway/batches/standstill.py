"""A standstill: while a backup is taken nothing is taken away that it may not have seen yet.

The broker's streams and the store are read one after the other. What is moved or replaced meanwhile, and removed where
it was, would be in neither part, so gateways put that off: entries of the ledger stay at the broker, results of batches
are not made into files. Requests and lines go on, nobody waits for this. A mark at the broker says that it is so; it
fades by itself, should the backup die.

Whoever takes something away looks for the mark after it has read what it is about to move: so all that it moves was
there before the mark, and the backup, which begins after the mark, finds it in one place or the other.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from stream_core.cancellation import end
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.streams import PREFIX, RECORDS

MARK: Final = f"{PREFIX}.record.backup.mark"
_FADES_S: Final = 60.0


async def stands_still(journal: Journal) -> bool:
    """Tell whether a backup is being taken.

    Raises:
        StoreAway: the broker does not answer.
    """
    return await journal.get(MARK, stream=RECORDS) is not None


class Standstill:
    """The mark, as the backup holds it.

    Args:
        journal: of the broker.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._at = 0

    async def renew(self) -> None:
        """Set the mark, or keep it from fading.

        Raises:
            Conflict: another backup is being taken, or the mark has faded.
            StoreAway: not confirmed.
        """
        self._at = await self._journal.put(MARK, b"", stream=RECORDS, ttl_s=_FADES_S, last=self._at)

    async def follow(self) -> None:
        """Keep it from fading; ends with the reason why it may have."""
        while True:
            await asyncio.sleep(_FADES_S / 4)
            await self.renew()

    async def release(self) -> None:
        """Take the mark back, unless it is another backup's by now."""
        with contextlib.suppress(StoreAway):
            kept = await self._journal.get(MARK, stream=RECORDS)
            if kept is not None and kept.sequence == self._at:
                await self._journal.purge(MARK, stream=RECORDS)


@contextlib.asynccontextmanager
async def standstill(journal: Journal) -> AsyncIterator[None]:
    """Let everything stay where it is until the block ends.

    Raises:
        Conflict: another backup is being taken, or it did not stay: the block's work is worth nothing.
        StoreAway: likewise, the broker was away.
    """
    mark = Standstill(journal)
    await mark.renew()
    following = asyncio.create_task(mark.follow())
    try:
        yield
        if following.done():
            following.result()
        await mark.renew()
    finally:
        await end(following)
        await mark.release()
