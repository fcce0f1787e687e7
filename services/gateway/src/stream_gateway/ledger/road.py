"""The ledger's way over the broker: slips on their way to the store, sealed, one for each request.

stream                | subjects                          | holds
----------------------+-----------------------------------+--------------------------------------------------
stream-batch-ledger   | stream.batch.ledger.<chain>.<id>  | the intent of a request, then its entry; until it
|                                   | is in the store
stream-batch-records  | ...record.ledger.opening          | the opening entry of the newest chain
| ...record.ledger-alive.<chain>    | that the chain's gateway lives; its broker forgets
| ...record.ledger-head.<chain>     | the chain's last entry that is in the store
"""

import logging
import secrets
from typing import Final

import msgspec

from stream_core.audit.entries import Chain, hash_of
from stream_core.errors import FrameError, SealError
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import FAULTS, LEDGER, PREFIX, RECORDS, away
from stream_gateway.ledger.writer import Slip

_log = logging.getLogger(__name__)
_KEPT_S: Final = 50 * 365 * 86_400.0
_SLIP_TTL_S: Final = 400 * 86_400
"""For a deployment that has no store, or none for so long."""
OPENING: Final = f"{PREFIX}.record.ledger.opening"
ALIVE: Final = f"{PREFIX}.record.ledger-alive"
OPENED: Final = "opened"


class _Opening(msgspec.Struct, frozen=True):
    chain: str
    entry: str


class Head(msgspec.Struct, frozen=True):
    """How far a chain is in the store."""

    chain: str
    number: int
    sha256: str


class Road:
    """See the module.

    Args:
        journal: of the broker.
        sealer: of this service.
        alive_s: for how long a gateway is believed to live that says nothing.
    """

    def __init__(self, journal: Journal, sealer: Sealer, *, alive_s: float) -> None:
        self._journal = journal
        self._sealer = sealer
        self.alive_s = alive_s

    @property
    def connected(self) -> bool:
        """Whether the broker is there, as far as is known."""
        return self._journal.client.is_connected

    async def open_chain(self, chain: Chain, at: float) -> None:
        """Link a chain to the one that was opened before it; that one's opening is sent again, if its gateway died.

        Raises:
            StoreAway: not now; `chain` is as it was.
        """
        await self.tell_alive(chain.name)
        while True:
            kept = await self._journal.get(OPENING, stream=RECORDS)
            links = ""
            if kept is not None and (before := self._opening(kept.data)) is not None:
                links = hash_of(before.entry.encode())
                await self.send(before.chain, OPENED, Slip(before.entry))
            entry = Chain(chain.name).add("opened", at, links=links).decode()
            content = self._seal(msgspec.json.encode(_Opening(chain.name, entry)), OPENING)
            last = kept.sequence if kept else 0
            try:
                await self._journal.put(OPENING, content, stream=RECORDS, ttl_s=_KEPT_S, last=last)
            except Conflict:
                continue
            chain.add("opened", at, links=links)
            await self.send(chain.name, OPENED, Slip(entry))
            return

    async def send(self, chain: str, name: str, slip: Slip) -> None:
        """Write a slip in the place of an older one of that name.

        Raises:
            StoreAway: not confirmed; it may be there all the same.
        """
        subject = f"{PREFIX}.ledger.{chain}.{name}"
        content = self._seal(msgspec.json.encode(slip), subject)
        try:
            await self._journal.jetstream.publish(subject, content, stream=LEDGER, msg_ttl=_SLIP_TTL_S)
        except FAULTS as error:
            raise away(error) from error

    def read(self, subject: str, data: bytes) -> Slip:
        """Open a slip.

        Raises:
            FrameError, SealError: it is not this service's.
        """
        return msgspec.json.decode(self._unseal(data, subject), type=Slip)

    async def tell_alive(self, chain: str) -> None:
        """Say that a chain's gateway lives.

        Raises:
            StoreAway: not now.
        """
        await self._overwrite(f"{ALIVE}.{chain}", b"", self.alive_s)

    async def is_alive(self, chain: str) -> bool:
        """Whether a chain's gateway has said so lately."""
        return await self._journal.get(f"{ALIVE}.{chain}", stream=RECORDS) is not None

    async def remember(self, head: Head) -> None:
        """Note how far a chain is in the store."""
        subject = f"{PREFIX}.record.ledger-head.{head.chain}"
        await self._overwrite(subject, self._seal(msgspec.json.encode(head), subject), _KEPT_S)

    async def head(self, chain: str) -> Head | None:
        """Tell what was noted."""
        subject = f"{PREFIX}.record.ledger-head.{chain}"
        kept = await self._journal.get(subject, stream=RECORDS)
        return msgspec.json.decode(self._unseal(kept.data, subject), type=Head) if kept else None

    async def heads(self) -> dict[str, tuple[int, str]]:
        """Tell what was noted of all chains; what does not open is left out."""
        found: dict[str, tuple[int, str]] = {}
        pattern = f"{PREFIX}.record.ledger-head.*"
        async for kept in self._journal.read(pattern, stream=RECORDS, last_only=True):
            try:
                head = msgspec.json.decode(self._unseal(kept.data, kept.subject), type=Head)
            except (FrameError, SealError):
                continue
            found[head.chain] = head.number, head.sha256
        return found

    async def _overwrite(self, subject: str, content: bytes, ttl_s: float) -> None:
        while True:
            kept = await self._journal.get(subject, stream=RECORDS)
            try:
                last = kept.sequence if kept else 0
                await self._journal.put(subject, content, stream=RECORDS, ttl_s=ttl_s, last=last)
            except Conflict:
                continue
            return

    def _opening(self, data: bytes) -> _Opening | None:
        try:
            return msgspec.json.decode(self._unseal(data, OPENING), type=_Opening)
        except (FrameError, SealError) as error:
            # Of another service key: a verification finds two first chains, as there are.
            _log.warning("the ledger begins anew: %s", error.message)
            return None

    def _seal(self, content: bytes, place: str) -> bytes:
        return self._sealer.seal(content, "record", "ledger", place, nonce=secrets.token_bytes(NONCE_BYTES))

    def _unseal(self, data: bytes, place: str) -> bytes:
        return unseal(self._sealer, data, place)


def unseal(sealer: Sealer, data: bytes, place: str) -> bytes:
    """Open what lies on this way; errors as of `Sealer.unseal`."""
    return sealer.unseal(data, "record", "ledger", place)
