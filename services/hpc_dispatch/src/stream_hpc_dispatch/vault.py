"""The leases' second home: what `Dispatch` knows of each lease, sealed, in a bucket; read back at the next start.

Writing is in the background and in order per lease; while the broker is away the newest version waits here. The
broker is not trusted:

    what it gives                                      | counted as        | and then
    ---------------------------------------------------+-------------------+------------------------------------------
    cut short, of another version, about another lease | malformed_record  | not used; its time to live removes it
    does not open: forged, of another place or key     | forged_record     | not used; its time to live removes it
    an older copy of what was written                  | replayed_record   | not used; its job is stopped (at start),
                                                       |                   | or it is written over (while running)
    a write that nobody confirmed                      | record_not_written| tried again
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from stream_core.errors import FrameError, SealError
from stream_core.files import write_private
from stream_core.ids import to_hex
from stream_hpc_dispatch.bucket import FAULTS, Bucket, ConflictError
from stream_hpc_dispatch.leadership import KEY as LEADER
from stream_hpc_dispatch.leases import Note
from stream_hpc_dispatch.records import NONCE_BYTES, Record, seal, seal_bytes, unseal, unseal_bytes

_RETRY_S: Final = 0.5
JOURNAL: Final = "journal"
"""In the bucket: what the plan must not forget, where replicas share it."""
_JOURNAL_S: Final = 2 * 86_400.0
_MARGIN_S: Final = 600.0
"""After a lease's end its record stays this long, so that a late start still finds the job and stops it."""


@dataclass(slots=True)
class Found:
    """What stood in the bucket."""

    records: list[Record] = field(default_factory=list)
    older: list[Record] = field(default_factory=list)
    """Authentic, and not the last that was written: not to be believed, but their jobs may still run."""
    journal: bytes | None = None
    """Of the last leader, where replicas share it."""


class Vault:
    """Keeps records.

    Args:
        bucket: where; None keeps nothing.
        service_key: 32 bytes.
        note: counts a fault.
        clock: gives unix seconds.
        counters: a file of this machine with the counters of what was written; also an old copy that is put back
            while this program does not run is noticed by it.
        verify: raises `DeposedError` when another replica leads: it wrote what is not as this one left it. None: there
            is no other replica.
    """

    def __init__(
        self,
        bucket: Bucket | None,
        service_key: bytes,
        note: Note,
        *,
        clock: Callable[[], float],
        counters: Path,
        verify: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._bucket = bucket
        self._key = service_key
        self._note = note
        self._clock = clock
        self._counters_file = counters
        self._verify = verify
        self._counters: dict[str, int] = {}
        self._revisions: dict[str, int] = {}
        self._pending: dict[str, Record | bytes | None] = {}
        self._stale = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def place(self) -> str:
        """Where the records are, in words."""
        return f"bucket {self._bucket.name}" if self._bucket else "in memory only"

    async def load(self) -> Found:
        """Read everything; the faults of the table are counted.

        Raises:
            nats.errors.Error: the broker went away.
        """
        found = Found()
        if self._bucket is None:
            return found
        written = _read_counters(self._counters_file)
        for key in await self._bucket.keys():
            entry = await self._bucket.read(key)
            if entry is None or entry.value is None:
                continue
            if key == LEADER:
                continue
            if key == JOURNAL:
                self._revisions[key] = entry.revision
                found.journal = self._open_journal(entry.value)
                continue
            record = self._open(key, entry.value)
            if record is None:
                continue
            self._revisions[key] = entry.revision
            self._counters[key] = max(record.counter, written.get(key, 0))
            if record.counter < written.get(key, 0):
                self._note("replayed_record", f"lease {key}: copy {record.counter}, {written[key]} was written")
                found.older.append(record)
            else:
                found.records.append(record)
        return found

    def keep(self, record: Record) -> None:
        """Write a record soon; its counter is set here."""
        if self._bucket is not None:
            self._put(to_hex(record.lease), record)

    def forget(self, lease: bytes) -> None:
        """Remove a record soon."""
        if self._bucket is not None:
            self._put(to_hex(lease), None)

    def keep_journal(self, written: bytes) -> None:
        """Write the plan's journal soon, where replicas share it."""
        if self._bucket is not None and self._verify is not None:
            self._put(JOURNAL, written)

    def _put(self, key: str, record: Record | bytes | None) -> None:
        self._pending[key] = record
        self._stale.set()

    async def settled(self, lease: bytes | None = None, *, within_s: float) -> bool:
        """Wait until a lease and the journal, or everything, is written; false when that takes too long."""
        keys = None if lease is None else {to_hex(lease), JOURNAL}
        try:
            async with asyncio.timeout(within_s):
                while self._pending if keys is None else keys & self._pending.keys():
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write what is to be written, for ever; raises `DeposedError` as `verify` does."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            failed = False
            for key in list(self._pending):
                try:
                    await self._write(key)
                except (*FAULTS, ConflictError) as error:
                    self._note("record_not_written", f"lease {key}: {type(error).__name__}: {error}")
                    failed = True
            self._write_counters()
            self._progress.set()
            self._progress = asyncio.Event()
            if failed:
                await asyncio.sleep(_RETRY_S)
                self._stale.set()

    async def _write(self, key: str) -> None:
        bucket, record = self._bucket, self._pending[key]
        if bucket is None:
            return
        try:
            await self._write_once(bucket, key, record)
        except ConflictError:
            await self._look_again(bucket, key)
            await self._write_once(bucket, key, record)
        if self._pending.get(key) is record:
            del self._pending[key]

    async def _write_once(self, bucket: Bucket, key: str, record: Record | bytes | None) -> None:
        revision, nonce = self._revisions.get(key, 0), secrets.token_bytes(NONCE_BYTES)
        if isinstance(record, bytes):
            sealed = seal_bytes(record, self._key, bucket=bucket.name, key=key, nonce=nonce)
            self._revisions[key] = await bucket.write(key, sealed, revision=revision, ttl_s=_JOURNAL_S)
            return
        if record is None:
            if key in self._revisions:
                await bucket.remove(key, revision=revision)
            self._revisions.pop(key, None)
            self._counters.pop(key, None)
            return
        counter = self._counters.get(key, 0) + 1
        sealed = seal(
            msgspec.structs.replace(record, counter=counter),
            self._key,
            bucket=bucket.name,
            nonce=nonce,
        )
        ttl_s = record.expires + _MARGIN_S - self._clock()
        self._revisions[key] = await bucket.write(key, sealed, revision=revision, ttl_s=ttl_s)
        self._counters[key] = counter

    async def _look_again(self, bucket: Bucket, key: str) -> None:
        """Find out why a key is not at the revision that we wrote: ours is what counts, and goes over it.

        Raises:
            DeposedError: another replica leads: now its own is what counts.
        """
        entry = await bucket.read(key)
        if self._verify is not None:
            await self._verify()  # after the read: who led until now has not been overwritten by what was read
        self._revisions[key] = entry.revision if entry else 0
        if entry is None or entry.value is None or key == JOURNAL:
            return
        record = self._open(key, entry.value)
        if record is None:
            return
        if record.counter <= self._counters.get(key, 0):
            self._note("replayed_record", f"lease {key}: copy {record.counter} came back")
        # Else it is our own write whose confirmation was lost.
        self._counters[key] = max(record.counter, self._counters.get(key, 0))

    def _open(self, key: str, value: bytes) -> Record | None:
        name = self._bucket.name if self._bucket else ""
        try:
            return unseal(value, self._key, bucket=name, key=key)
        except FrameError as error:
            self._note("malformed_record", error.message)
        except SealError as error:
            self._note("forged_record", error.message)
        return None

    def _open_journal(self, value: bytes) -> bytes | None:
        name = self._bucket.name if self._bucket else ""
        try:
            return unseal_bytes(value, self._key, bucket=name, key=JOURNAL)
        except (FrameError, SealError) as error:
            self._note("forged_record", error.message)
            return None

    def _write_counters(self) -> None:
        try:
            write_private(self._counters_file, json.dumps(self._counters).encode())
        except OSError as error:
            self._note("counters_not_written", f"{self._counters_file}: {error.strerror}")


def _read_counters(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError):
        return {}
