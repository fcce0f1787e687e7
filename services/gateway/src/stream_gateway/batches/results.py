"""Lines waiting to run, and what became of those that did: one message per line, written once, whoever ran it."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import msgspec

from stream_core.broker_client import Msg
from stream_core.errors import FrameError, SealError
from stream_core.ids import new_id, to_hex
from stream_gateway.batches.contents import CHUNK_BYTES, Contents
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.journal import Journal, WorkQueue
from stream_gateway.batches.outcomes import not_run
from stream_gateway.batches.records import LineWork, Result
from stream_gateway.batches.sealing import NONCE_BYTES, Sealer
from stream_gateway.batches.streams import LINES, PREFIX, RESULTS

_LONGEST_INLINE: Final = 512 * 1024
"""Bytes; a longer result lies in a file of its own, since a broker's messages are limited."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a batch is."""

    done: int
    failed: int
    """Of those."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A line that was taken from the queue; it comes again unless `message` is acknowledged."""

    number: int
    work: LineWork
    message: Msg


class Results:
    """The lines of all batches.

    Args:
        journal: where.
        sealer: of this service.
        contents: for results too long for a message.
    """

    def __init__(self, journal: Journal, sealer: Sealer, contents: Contents) -> None:
        self._journal = journal
        self._sealer = sealer
        self._contents = contents

    async def enqueue(self, batch: str, number: int, work: LineWork, ttl_s: float) -> None:
        """Let a line run; one that waits already waits on."""
        content = msgspec.json.encode(work)
        try:
            await self._journal.put(
                f"{PREFIX}.line.{batch}.{number}", self._seal(content, "line", batch, number), stream=LINES, ttl_s=ttl_s
            )
        except Conflict:
            return

    async def queue(self, batch: str, redeliver_s: float) -> WorkQueue:
        """Take part in a batch's queue."""
        return await self._journal.work(f"{PREFIX}.line.{batch}.*", batch, redeliver_s=redeliver_s)

    def taken(self, batch: str, message: Msg) -> Taken:
        """Open what came from the queue.

        Raises:
            FrameError: malformed.
            SealError: nobody of ours has put it there.
        """
        number = _number(message.subject)
        content = self._sealer.unseal(message.data, "line", batch, str(number))
        work = msgspec.json.decode(content, type=LineWork)
        return Taken(number, work, message)

    async def is_done(self, batch: str, number: int) -> bool:
        """Whether a line has its result already."""
        return await self._journal.get(f"{PREFIX}.result.{batch}.{number}", stream=RESULTS) is not None

    async def put(self, batch: str, number: int, result: Result, ttl_s: float) -> bool:
        """Write a line's result, unless it has one.

        Returns:
            Whether this one counts.

        Raises:
            StoreAway: not confirmed; write it again, it can't count twice.
        """
        if len(result.text) > _LONGEST_INLINE:
            result = await self._aside(result, ttl_s)
        sealed = self._seal(msgspec.msgpack.encode(result), "result", batch, number)
        counts = True
        try:
            await self._journal.put(f"{PREFIX}.result.{batch}.{number}", sealed, stream=RESULTS, ttl_s=ttl_s)
        except Conflict:
            counts = False
            kept = await self._journal.get(f"{PREFIX}.result.{batch}.{number}", stream=RESULTS)
            if result.aside:
                await self._contents.remove(result.aside)
            if kept is None:
                return False
            result = self._open(batch, number, kept.data)
        if not result.ok:
            with contextlib.suppress(Conflict):
                await self._journal.put(f"{PREFIX}.failure.{batch}.{number}", b"", stream=RESULTS, ttl_s=ttl_s)
        return counts

    async def counts(self, batch: str) -> Counts:
        """Tell how many lines have a result; the broker counts, nothing is read."""
        failed = await self._journal.count(f"{PREFIX}.failure.{batch}.*", stream=RESULTS, name=f"failed-{batch}")
        done = await self._journal.count(f"{PREFIX}.result.{batch}.*", stream=RESULTS, name=f"done-{batch}")
        return Counts(done, min(done, failed))

    async def numbers(self, batch: str) -> AsyncIterator[int]:
        """Give the numbers of the lines that have a result."""
        pattern = f"{PREFIX}.result.{batch}.*"
        async for kept in self._journal.read(pattern, stream=RESULTS, headers_only=True):
            yield _number(kept.subject)

    async def texts(self, batch: str) -> AsyncIterator[tuple[bool, bytes]]:
        """Give (whether it succeeded, its line of JSON) of all results, in the order in which they came."""
        async for kept in self._journal.read(f"{PREFIX}.result.{batch}.*", stream=RESULTS):
            result = self._open(batch, _number(kept.subject), kept.data)
            if result.aside:
                yield result.ok, await self._contents.whole(result.aside, result.chunks)
            else:
                yield result.ok, result.text

    async def drop_lines(self, batch: str) -> None:
        """Let nothing of a batch run any more."""
        await self._journal.purge(f"{PREFIX}.line.{batch}.*", stream=LINES)
        await self._journal.forget_work(batch)

    async def drop_results(self, batch: str) -> None:
        """Remove the results of a batch whose files are written."""
        for kind in ("result", "failure"):
            await self._journal.purge(f"{PREFIX}.{kind}.{batch}.*", stream=RESULTS)

    async def _aside(self, result: Result, ttl_s: float) -> Result:
        aside = f"result-{to_hex(new_id())}"
        writer = self._contents.writer(aside, ttl_s)
        for start in range(0, len(result.text), CHUNK_BYTES):
            await writer.add(result.text[start : start + CHUNK_BYTES])
        await writer.finish()
        return Result(result.ok, aside=aside, chunks=writer.chunks)

    def _seal(self, content: bytes, kind: str, batch: str, number: int) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self._sealer.seal(content, "line" if kind == "line" else "result", batch, str(number), nonce=nonce)

    def _open(self, batch: str, number: int, sealed: bytes) -> Result:
        """Open a result; one that the broker has changed is a failure that says so."""
        try:
            return msgspec.msgpack.decode(self._sealer.unseal(sealed, "result", batch, str(number)), type=Result)
        except (FrameError, SealError, msgspec.DecodeError):
            words = f"line {number}: its result was changed at the broker"
            return not_run(batch, number, None, code="result_unreadable", message=words)


def _number(subject: str) -> int:
    last = subject.rpartition(".")[2]
    if not last.isdecimal():
        raise FrameError(f"subject {subject!r} names no line")
    return int(last)
