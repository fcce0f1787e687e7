"""An owner's files: uploaded, listed, read, deleted.

Limits are kept by writing first and counting then: of two uploads that would be one too many together, both may be
refused, never both taken.
"""

from collections.abc import AsyncIterator
from typing import Final

from msgspec.structs import replace

from stream_core.errors import InvalidRequest
from stream_core.ids import new_id, to_hex
from stream_gateway.batches import limits
from stream_gateway.batches.contents import Writer
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.multipart import Form
from stream_gateway.batches.records import BatchRecord, FileRecord, usage
from stream_gateway.batches.shelf import Found
from stream_gateway.batches.states import CLOSED
from stream_gateway.batches.store import Store

_UPLOAD_S: Final = 3600.0
"""An upload that takes longer, or whose gateway died, is forgotten."""
_FORM_BYTES: Final = 64 * 1024
"""Of a request, what may be there besides the file."""


class Files:
    """The files of all owners.

    Args:
        store: where.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def upload(
        self, owner: str, privacy: str, *, content_type: str, declared: int | None, body: AsyncIterator[bytes]
    ) -> FileRecord:
        """Take a file as it comes.

        Args:
            owner: id of the principal.
            privacy: class of the file's text.
            content_type: of the request.
            declared: bytes of the body, where the client says so.
            body: of the request.

        Raises:
            StreamError: a limit, a malformed body, or the store is away; nothing of it is kept.
        """
        most = self._store.limits.max_file_bytes
        if declared is not None:
            limits.check_file_size(declared - _FORM_BYTES, most)
        form = Form(content_type)
        now = self._store.clock()
        draft = FileRecord(
            id=f"file-{to_hex(new_id())}",
            owner=owner,
            filename="",
            purpose="",
            created=now,
            expires=now + _UPLOAD_S,
            bytes=max(0, (declared or 0) - _FORM_BYTES),
            privacy=privacy,
        )
        revision = await self._store.shelf.write(draft)
        try:
            await self._check_usage(owner)
            writer = self._store.contents.writer(draft.id, self._store.limits.file_ttl_s)
            await self._take(form, body, writer, most)
            whole = self._describe(draft, form, writer)
            await self._store.shelf.write(whole, revision=revision)
            await self._check_usage(owner)
        except BaseException:
            await self._discard(draft)
            raise
        return whole

    async def _take(self, form: Form, body: AsyncIterator[bytes], writer: Writer, most: int) -> None:
        async for data in body:
            for piece in form.feed(data):
                limits.check_file_size(writer.bytes + len(piece.data), most)
                await writer.add(piece.data)
        if not form.complete:
            raise InvalidRequest("the body is not valid multipart/form-data: it ends too early")
        await writer.finish()

    def _describe(self, draft: FileRecord, form: Form, writer: Writer) -> FileRecord:
        if form.filename is None:
            raise InvalidRequest("file is missing", param="file")
        if not writer.bytes:
            raise InvalidRequest("file: it is empty", param="file")
        kept_s = limits.expiry_seconds(
            form.fields.get("expires_after[anchor]"),
            form.fields.get("expires_after[seconds]"),
            self._store.limits.file_ttl_s,
        )
        return replace(
            draft,
            filename=limits.clean_filename(form.filename),
            purpose=limits.check_purpose(form.fields.get("purpose", "")),
            expires=draft.created + kept_s,
            bytes=writer.bytes,
            chunks=writer.chunks,
            whole=True,
        )

    async def _check_usage(self, owner: str) -> None:
        used = usage([found.record for found in await self._store.shelf.all_of(FileRecord, owner)])
        limits.check_usage(used, max_files=self._store.limits.max_files, max_bytes=self._store.limits.max_total_bytes)

    async def _discard(self, record: FileRecord) -> None:
        try:
            await self._store.shelf.remove(FileRecord, record.owner, record.id)
            await self._store.contents.remove(record.id)
        except StoreAway:
            return  # its time to live removes it

    async def get(self, owner: str, id_: str) -> FileRecord:
        """Find a file.

        Raises:
            NoSuchFile: none of this owner.
        """
        return (await self.find(owner, id_)).record

    async def find(self, owner: str, id_: str) -> Found[FileRecord]:
        """Find a file with its revision; errors as `get`."""
        limits.file_id(id_)
        found = await self._store.shelf.find(FileRecord, self._store.shelf.tag(owner), id_)
        if found is None or not found.record.whole:
            raise limits.NoSuchFile(f"there is no file {id_!r}", param="file_id")
        return found

    async def all_of(self, owner: str) -> list[FileRecord]:
        """List an owner's files, the newest first."""
        found = await self._store.shelf.all_of(FileRecord, owner)
        files = [each.record for each in found if each.record.whole]
        return sorted(files, key=lambda file: (-file.created, file.id))

    def content(self, file: FileRecord) -> AsyncIterator[bytes]:
        """Read a file."""
        return self._store.contents.read(file)

    async def delete(self, owner: str, id_: str) -> None:
        """Delete a file.

        Raises:
            NoSuchFile: none of this owner.
            FileInUse: a batch that has not ended reads it.
        """
        record = await self.get(owner, id_)
        for found in await self._store.shelf.all_of(BatchRecord, owner):
            batch = found.record
            if batch.input_file == id_ and batch.status not in CLOSED:
                words = f"the file {id_} is in use by {batch.id}, which is {batch.status}: cancel that first"
                raise limits.FileInUse(words, param="file_id")
        await self._discard(record)
