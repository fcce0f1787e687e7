"""An owner's batches: created, shown, listed, cancelled. Running them is the runner's work."""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from stream_core.errors import InvalidRequest
from stream_core.ids import new_id, to_hex
from stream_gateway.batches import limits
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.batches.files import Files
from stream_gateway.batches.records import BatchRecord, Wish
from stream_gateway.batches.results import Counts
from stream_gateway.batches.shelf import Found
from stream_gateway.batches.states import CLOSED, advance
from stream_gateway.batches.store import Store

_TRIES: Final = 10

Strictest = Callable[[str, str], str]
"""Of two privacy classes, the more confidential one."""


class Desk:
    """The batches of all owners.

    Args:
        store: where.
        files: of the owners.
    """

    def __init__(self, store: Store, files: Files) -> None:
        self._store = store
        self._files = files

    async def create(self, owner: str, privacy: str, wish: Wish, strictest: Strictest, project: str) -> BatchRecord:
        """Make a batch; a runner takes it from there.

        Args:
            owner: id of the principal.
            privacy: class that key and header give it.
            wish: what is asked for.
            strictest: of file and request.
            project: id of the one that its lines count for and whose rules they keep; empty: none.

        Raises:
            StreamError: a field is wrong, or a limit bites.
        """
        limits.check_endpoint(wish.endpoint)
        allowed = self._store.limits
        window_s = limits.window_seconds(wish.window, allowed.max_window_s)
        metadata = limits.check_metadata(wish.metadata)
        file = await self._files.get(owner, wish.input_file)
        limits.check_open(len(await self._open_of(owner)) + 1, allowed.max_open_batches)
        now = self._store.clock()
        if file.expires < now + window_s:
            left = max(0, int(file.expires - now))
            raise InvalidRequest(
                f"input_file_id: the file is kept for {left:,} more seconds, the completion window has {window_s:,}",
                param="input_file_id",
            )
        record = BatchRecord(
            id=f"batch_{to_hex(new_id())}",
            owner=owner,
            endpoint=wish.endpoint,
            input_file=file.id,
            output_file=f"file-{to_hex(new_id())}",
            error_file=f"file-{to_hex(new_id())}",
            window=wish.window,
            privacy=strictest(file.privacy, privacy),
            created=now,
            expires=now + window_s,
            output_expires=now + window_s + allowed.file_ttl_s,
            project=project,
            metadata=metadata,
            stamps={"validating": now},
        )
        # The mark first: a batch without one would never run, a mark without a batch is only looked at.
        await self._store.shelf.mark_open(record)
        await self._store.shelf.write(record)
        try:
            # Again, with this one in it: of two at once both may be refused, never one too many taken.
            limits.check_open(len(await self._open_of(owner)), allowed.max_open_batches)
            await self._files.get(owner, file.id)  # it may have been deleted meanwhile
        except BaseException:
            await self._store.shelf.remove(BatchRecord, owner, record.id)
            await self._store.shelf.mark_closed(self._store.shelf.tag(owner), record.id)
            raise
        await self._store.nudge()
        return record

    async def get(self, owner: str, id_: str) -> BatchRecord:
        """Find a batch, with its counts as they are now.

        Raises:
            NoSuchBatch: none of this owner.
        """
        return await self._counted((await self._find(owner, id_)).record)

    async def all_of(self, owner: str) -> list[BatchRecord]:
        """List an owner's batches, the newest first; counts of those that run are those of their last change."""
        found = await self._store.shelf.all_of(BatchRecord, owner)
        return sorted((each.record for each in found), key=lambda batch: (-batch.created, batch.id))

    async def counted(self, records: list[BatchRecord]) -> list[BatchRecord]:
        """Bring the counts of some batches up to date."""
        return [await self._counted(record) for record in records]

    async def cancel(self, owner: str, id_: str) -> BatchRecord:
        """Cancel a batch: nothing new is begun, what runs is cut off; finished lines stay in the output.

        Raises:
            NoSuchBatch: none of this owner.
            IllegalEvent: it has ended, or is about to.
        """
        for _ in range(_TRIES):
            found = await self._find(owner, id_)
            if found.record.status == "cancelling":
                return await self._counted(found.record)
            cancelled = advance(found.record, "cancel", self._store.clock())
            try:
                await self._store.shelf.write(cancelled, revision=found.revision)
            except Conflict:
                continue  # a runner was quicker: look again
            await self._store.nudge()
            return await self._counted(cancelled)
        raise StoreAway(f"the batch {id_} changes too quickly, try again")

    async def _counted(self, record: BatchRecord) -> BatchRecord:
        if record.status in CLOSED or record.refused or not record.total:
            return record
        counts: Counts = await self._store.results.counts(record.id)
        return replace(record, completed=counts.done - counts.failed, failed=counts.failed)

    async def _find(self, owner: str, id_: str) -> Found[BatchRecord]:
        limits.batch_id(id_)
        found = await self._store.shelf.find(BatchRecord, self._store.shelf.tag(owner), id_)
        if found is None:
            raise limits.NoSuchBatch(f"there is no batch {id_!r}", param="batch_id")
        return found

    async def _open_of(self, owner: str) -> list[BatchRecord]:
        found = await self._store.shelf.all_of(BatchRecord, owner)
        return [each.record for each in found if each.record.status not in CLOSED]
