"""The common sum of what the cloud has cost: one sealed record for each month, changed by compare-and-set."""

import asyncio
import secrets
from typing import Final

import msgspec

from stream_core.errors import FrameError, SealError
from stream_core.telemetry import Once
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import PREFIX, RECORDS
from stream_gateway.spending import Spending

_LOOK_S: Final = 1.0
_KEPT_S: Final = 70 * 86_400.0
"""Long enough for a request that ends in the next month."""


class _Sum(msgspec.Struct, frozen=True):
    dollars: float


class Spent:
    """Keeps a replica's `Spending` and the common sum together.

    Args:
        journal: where the sum is.
        sealer: of this service.
        spending: of this replica.
        faults: counts what does not open, and a broker that is away.
    """

    def __init__(self, journal: Journal, sealer: Sealer, spending: Spending, faults: Once) -> None:
        self._journal = journal
        self._sealer = sealer
        self._spending = spending
        self._faults = faults

    async def follow(self) -> None:
        """Write and read the sum each second, until cancelled."""
        while True:
            for month, amount in {self._spending.month: 0.0, **self._spending.unwritten()}.items():
                try:
                    await self._add(month, amount)
                except (StoreAway, FrameError, SealError) as error:
                    self._faults.note(error.code, error.message)
                except Conflict:
                    continue  # another replica was quicker: the next look adds to what it wrote
            await asyncio.sleep(_LOOK_S)

    async def _add(self, month: str, amount: float) -> None:
        subject = f"{PREFIX}.record.spent.cloud.{month}"
        kept = await self._journal.get(subject, stream=RECORDS)
        before = 0.0
        if kept is not None:
            content = self._sealer.unseal(kept.data, "record", subject, "")
            before = msgspec.json.decode(content, type=_Sum).dollars
        total = max(0.0, before + amount)
        if amount:
            content = msgspec.json.encode(_Sum(total))
            sealed = self._sealer.seal(content, "record", subject, "", nonce=secrets.token_bytes(NONCE_BYTES))
            last = kept.sequence if kept else 0
            await self._journal.put(subject, sealed, stream=RECORDS, ttl_s=_KEPT_S, last=last)
        self._spending.heard(month, total, amount)
