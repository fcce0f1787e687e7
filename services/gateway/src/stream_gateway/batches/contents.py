"""What stands in files: sealed chunks, written as they come, read as they are wanted; never a whole file in memory."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Final

from stream_core.errors import SealError
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.records import FileRecord
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import FILES, PREFIX

CHUNK_BYTES: Final = 256 * 1024
"""Of every chunk but a file's last one."""
_KEPT_CHUNKS: Final = 16


class Contents:
    """The content of all files.

    Args:
        journal: where.
        sealer: of this service.
    """

    def __init__(self, journal: Journal, sealer: Sealer) -> None:
        self._journal = journal
        self._sealer = sealer
        self._chunks: dict[tuple[str, int], asyncio.Task[bytes]] = {}

    def writer(self, file_id: str, ttl_s: float) -> "Writer":
        """Begin to write a file."""
        return Writer(self, file_id, ttl_s)

    async def put(self, file_id: str, number: int, data: bytes, ttl_s: float) -> None:
        """Write a chunk; one that is there already is the very same."""
        sealed = self._sealer.seal(data, "chunk", file_id, str(number), nonce=secrets.token_bytes(NONCE_BYTES))
        try:
            await self._journal.put(_subject(file_id, str(number)), sealed, stream=FILES, ttl_s=ttl_s)
        except Conflict:
            return

    async def get(self, file_id: str, number: int) -> bytes:
        """Read a chunk.

        Raises:
            SealError: it is not there, or was changed.
        """
        kept = await self._journal.get(_subject(file_id, str(number)), stream=FILES)
        if kept is None:
            raise SealError(f"chunk {number} of {file_id} is missing at the broker")
        return self._sealer.unseal(kept.data, "chunk", file_id, str(number))

    async def read(self, file: FileRecord) -> AsyncIterator[bytes]:
        """Read a file from its beginning to its end."""
        left = file.bytes
        for number in range(file.chunks):
            data = await self.get(file.id, number)
            left -= len(data)
            yield data
        if left:
            raise SealError(f"{file.id} is not as long as it was")

    async def cut(self, file_id: str, offset: int, length: int) -> bytes:
        """Read a part of a file; chunks read lately are kept, since lines are asked for in order.

        Args:
            file_id: whose.
            offset: bytes from its beginning.
            length: bytes.
        """
        first, last = offset // CHUNK_BYTES, max(offset, offset + length - 1) // CHUNK_BYTES
        parts = [await self._kept(file_id, number) for number in range(first, last + 1)]
        start = offset - first * CHUNK_BYTES
        data = b"".join(parts)[start : start + length]
        if len(data) != length:
            raise SealError(f"{file_id} has no {length} bytes at {offset}")
        return data

    async def whole(self, file_id: str, chunks: int) -> bytes:
        """Read a small file at once."""
        return b"".join([await self.get(file_id, number) for number in range(chunks)])

    async def remove(self, file_id: str) -> None:
        """Remove a file's content."""
        await self._journal.purge(_subject(file_id, "*"), stream=FILES)

    async def _kept(self, file_id: str, number: int) -> bytes:
        key = (file_id, number)
        task = self._chunks.pop(key, None)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self.get(file_id, number))
        self._chunks[key] = task
        while len(self._chunks) > _KEPT_CHUNKS:
            del self._chunks[next(iter(self._chunks))]
        return await asyncio.shield(task)


class Writer:
    """A file that is being written."""

    def __init__(self, contents: Contents, file_id: str, ttl_s: float) -> None:
        self._contents = contents
        self._id = file_id
        self._ttl_s = ttl_s
        self._buffer = bytearray()
        self.bytes = 0
        self.chunks = 0

    async def add(self, data: bytes) -> None:
        """Write more; full chunks leave at once."""
        self._buffer += data
        self.bytes += len(data)
        while len(self._buffer) >= CHUNK_BYTES:
            await self._flush(CHUNK_BYTES)

    async def finish(self) -> None:
        """Write what is left."""
        if self._buffer:
            await self._flush(len(self._buffer))

    async def _flush(self, size: int) -> None:
        chunk = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        await self._contents.put(self._id, self.chunks, chunk, self._ttl_s)
        self.chunks += 1


def _subject(file_id: str, place: str) -> str:
    return f"{PREFIX}.file.{file_id}.{place}"
