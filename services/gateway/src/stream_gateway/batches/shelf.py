"""Records of files, batches and responses, sealed, by owner; changed by compare-and-set.

A batch that has not ended also has a record of kind "open", so that runners need not look through all of them.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from stream_core.errors import FrameError, SealError
from stream_core.telemetry import Once
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.records import BatchRecord, FileRecord, ResponseRecord
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import PREFIX, RECORDS

_R = TypeVar("_R", FileRecord, BatchRecord, ResponseRecord)
_KINDS: Final[dict[type, str]] = {FileRecord: "file", BatchRecord: "batch", ResponseRecord: "response"}
_OPEN: Final = "open"
_MARGIN_S: Final = 3600.0
"""A record of a batch stays so long after its files, so that its owner still finds out what became of it."""


@dataclass(frozen=True, slots=True)
class Found(Generic[_R]):
    """A record and which version of it."""

    record: _R
    revision: int


class Shelf:
    """Keeps records.

    Args:
        journal: where.
        sealer: of this service.
        clock: gives unix seconds.
        faults: counts what does not open.
    """

    def __init__(self, journal: Journal, sealer: Sealer, clock: Callable[[], float], faults: Once) -> None:
        self._journal = journal
        self._sealer = sealer
        self._clock = clock
        self._faults = faults

    def tag(self, owner: str) -> str:
        """Name an owner at the broker."""
        return self._sealer.owner_tag(owner)

    async def find(self, kind: type[_R], owner_tag: str, id_: str) -> Found[_R] | None:
        """Read a record; None: there is none, or it does not open."""
        kept = await self._journal.get(_subject(_KINDS[kind], owner_tag, id_), stream=RECORDS)
        return None if kept is None else self._open(kind, kept.subject, kept.data, kept.sequence)

    async def write(self, record: _R, *, revision: int = 0) -> int:
        """Write a record over the version that was read; 0: it is new.

        Returns:
            Its revision.

        Raises:
            Conflict: somebody else has written it meanwhile.
            StoreAway: not confirmed.
        """
        subject = _subject(_KINDS[type(record)], self.tag(record.owner), record.id)
        content = msgspec.json.encode(record)
        sealed = self._sealer.seal(content, "record", subject, "", nonce=secrets.token_bytes(NONCE_BYTES))
        until = record.output_expires + _MARGIN_S if isinstance(record, BatchRecord) else record.expires
        return await self._journal.put(subject, sealed, stream=RECORDS, ttl_s=until - self._clock(), last=revision)

    async def remove(
        self, kind: type[FileRecord] | type[BatchRecord] | type[ResponseRecord], owner: str, id_: str
    ) -> None:
        """Remove a record."""
        await self._journal.purge(_subject(_KINDS[kind], self.tag(owner), id_), stream=RECORDS)

    async def all_of(self, kind: type[_R], owner: str) -> list[Found[_R]]:
        """Read all records of an owner."""
        pattern = _subject(_KINDS[kind], self.tag(owner), "*")
        return [
            found
            async for kept in self._journal.read(pattern, stream=RECORDS, last_only=True)
            if (found := self._open(kind, kept.subject, kept.data, kept.sequence))
        ]

    async def ids_of(self, kind: type[_R], owner: str) -> list[str]:
        """List the ids of an owner's records, in their own order, without reading the records."""
        subjects = await self._journal.subjects(_subject(_KINDS[kind], self.tag(owner), "*"), stream=RECORDS)
        return sorted(subject.rpartition(".")[2] for subject in subjects)

    async def mark_open(self, record: BatchRecord) -> None:
        """Let runners find a batch."""
        subject = _subject(_OPEN, self.tag(record.owner), record.id)
        try:
            ttl_s = record.output_expires - self._clock()
            await self._journal.put(subject, b"", stream=RECORDS, ttl_s=ttl_s)
        except Conflict:
            return

    async def mark_closed(self, owner_tag: str, id_: str) -> None:
        """Let runners forget a batch."""
        await self._journal.purge(_subject(_OPEN, owner_tag, id_), stream=RECORDS)

    async def open_batches(self) -> list[tuple[str, str]]:
        """List (owner's tag, id) of the batches that have not ended."""
        subjects = await self._journal.subjects(_subject(_OPEN, "*", "*"), stream=RECORDS)
        return [(parts[-2], parts[-1]) for parts in (subject.split(".") for subject in subjects)]

    def _open(self, kind: type[_R], subject: str, data: bytes, revision: int) -> Found[_R] | None:
        try:
            content = self._sealer.unseal(data, "record", subject, "")
            record = msgspec.json.decode(content, type=kind)
        except (FrameError, SealError) as error:
            self._faults.note(error.code, error.message)
            return None
        except msgspec.DecodeError as error:
            self._faults.note("malformed_record", str(error))
            return None
        if not isinstance(record, BatchRecord) and record.expires <= self._clock():
            return None
        return Found(record, revision)


def _subject(kind: str, owner_tag: str, id_: str) -> str:
    return f"{PREFIX}.record.{kind}.{owner_tag}.{id_}"
