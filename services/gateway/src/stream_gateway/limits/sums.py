"""Where accounts are kept: one sealed record for each subject at the broker, changed by compare-and-set."""

import secrets
from typing import Final

from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import PREFIX, RECORDS

_KEPT_S: Final = 70 * 86_400.0
"""Long enough for a request that ends in the next month."""


class Sums:
    """The records.

    Args:
        journal: where they are.
        sealer: of this service.
    """

    def __init__(self, journal: Journal, sealer: Sealer) -> None:
        self._journal = journal
        self._sealer = sealer

    @property
    def connected(self) -> bool:
        """Whether the broker is there, as far as is known."""
        return self._journal.client.is_connected

    def place(self, name: str) -> str:
        """Tell where a subject's record is, so that the broker does not learn whose it is."""
        return f"{PREFIX}.record.limit.{self._sealer.owner_tag(name)}"

    async def read(self, place: str) -> tuple[bytes, int]:
        """Read a record, and its sequence; nothing and 0 when there is none.

        Raises:
            StoreAway: not now.
            SealError: it is not this service's.
        """
        kept = await self._journal.get(place, stream=RECORDS)
        if kept is None:
            return b"", 0
        return self._sealer.unseal(kept.data, "record", place, ""), kept.sequence

    async def write(self, place: str, content: bytes, *, last: int) -> int:
        """Write a record over the one that was read.

        Returns:
            Its sequence.

        Raises:
            Conflict: somebody else has written meanwhile.
            StoreAway: not confirmed; it may be there all the same.
        """
        sealed = self._sealer.seal(content, "record", place, "", nonce=secrets.token_bytes(NONCE_BYTES))
        return await self._journal.put(place, sealed, stream=RECORDS, ttl_s=_KEPT_S, last=last)
