"""The two deeds on a batch as a whole: its file is checked and its lines are queued; its results become files.

Both can be done twice, by two replicas, even at once: the same messages are written under the same names, and only
who still holds the batch may change its record.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Final, Self

from msgspec.structs import replace

from stream_core.errors import FrameError, SealError
from stream_gateway.batches.contents import Writer
from stream_gateway.batches.faults import Conflict
from stream_gateway.batches.lines import Bad, Census, Line, LineSplitter, check
from stream_gateway.batches.outcomes import not_run
from stream_gateway.batches.records import BatchRecord, FileRecord, LineWork, Problem, Result
from stream_gateway.batches.states import Event, advance, line_code
from stream_gateway.batches.store import Store

_SHOWN_PROBLEMS: Final = 20
_AT_ONCE: Final = 64
_SALT_BYTES: Final = 16
_MARGIN_S: Final = 3600.0
"""A line that waits is forgotten so long after its batch's window, should nobody remove it."""


class Clerk:
    """Does it.

    Args:
        store: where everything is.
        max_line: bytes of the longest line.
    """

    def __init__(self, store: Store, max_line: int) -> None:
        self._store = store
        self._max_line = max_line

    async def validate(self, record: BatchRecord) -> BatchRecord:
        """Check a batch's file and queue its good lines; a bad line gets its result at once.

        Returns:
            The record as it is then, to be written by the caller.
        """
        try:
            return await self._validate(record)
        except (FrameError, SealError) as error:
            return self._refused(record, Problem("input_unreadable", error.message))

    async def _validate(self, record: BatchRecord) -> BatchRecord:
        file = await self._input(record)
        if file is None:
            return self._refused(record, Problem("file_not_found", f"the file {record.input_file} is gone"))
        census = await self._census(file)
        most = self._store.limits.max_lines
        if census.count > most:
            words = f"the file has {census.count:,} lines, at most {most:,} are allowed"
            return self._refused(record, Problem("too_many_lines", words))
        if not census.count:
            return self._refused(record, Problem("empty_file", "the file has no line that is not blank"))
        problems: list[Problem] = []
        good = 0
        tag = self._store.shelf.tag(record.owner)
        wait_s = record.expires - self._store.clock() + _MARGIN_S
        async with _Writes() as writes:
            async for line in self._lines(file):
                problem, custom_id = self._judge(line, record, census)
                if problem is None:
                    good += 1
                    work = LineWork(tag, line.offset, line.length)
                    await writes.add(self._store.results.enqueue(record.id, line.number, work, wait_s))
                else:
                    problems = [*problems, problem][:_SHOWN_PROBLEMS]
                    await writes.add(self._report(record, line.number, custom_id, problem))
        event: Event = "enqueued" if good else "fail"
        return replace(advance(record, event, self._store.clock(), *problems), total=census.count)

    async def finalize(self, record: BatchRecord) -> BatchRecord:
        """Give every line without a result one that says why, and write all results into files.

        Returns:
            The record as it is then, to be written by the caller before `clean`.
        """
        if record.refused:
            return advance(record, "close", self._store.clock())
        await self._store.results.drop_lines(record.id)
        if record.ending != "completed":
            try:
                record = await self._fill(record)
            except (FrameError, SealError) as error:
                problem = Problem("input_unreadable", error.message)
                record = replace(record, problems=[*record.problems, problem])
        ttl_s = self._ttl_s(record)
        good = self._store.contents.writer(record.output_file, ttl_s)
        bad = self._store.contents.writer(record.error_file, ttl_s)
        counts = {True: 0, False: 0}
        async for ok, text in self._store.results.texts(record.id):
            counts[ok] += 1
            await (good if ok else bad).add(text + b"\n")
        for writer, id_, kind in ((good, record.output_file, "output"), (bad, record.error_file, "error")):
            await writer.finish()
            if writer.chunks:
                await self._name(record, id_, kind, writer)
        closed = advance(record, "close", self._store.clock())
        return replace(
            closed,
            completed=counts[True],
            failed=counts[False],
            has_output=good.chunks > 0,
            has_errors=bad.chunks > 0,
        )

    async def clean(self, record: BatchRecord) -> None:
        """Remove what a closed batch no longer needs."""
        await self._store.results.drop_lines(record.id)
        await self._store.results.drop_results(record.id)
        await self._store.shelf.mark_closed(self._store.shelf.tag(record.owner), record.id)

    async def _fill(self, record: BatchRecord) -> BatchRecord:
        file = await self._input(record)
        if file is None:
            return record
        code, message = line_code(record.ending)
        done = bytearray()
        async for number in self._store.results.numbers(record.id):
            if number >= len(done) * 8:
                done.extend(bytes(number // 8 + 1 - len(done)))
            done[number // 8] |= 1 << number % 8
        census = await self._census(file)
        async with _Writes() as writes:
            async for line in self._lines(file):
                if line.number < len(done) * 8 and done[line.number // 8] & 1 << line.number % 8:
                    continue
                problem, custom_id = self._judge(line, record, census)
                if problem is None:
                    result = not_run(record.id, line.number, custom_id, code=code, message=message)
                    await writes.add(self._put(record, line.number, result))
                else:
                    await writes.add(self._report(record, line.number, custom_id, problem))
        return replace(record, total=census.count)

    def _judge(self, line: Line, record: BatchRecord, census: Census) -> tuple[Problem | None, str | None]:
        """Say (what is wrong with a line, its custom_id)."""
        checked = check(line, record.endpoint, self._max_line)
        where = f"line {line.number}: "
        if isinstance(checked, Bad):
            problem = Problem("invalid_line", where + checked.message, line.number, checked.param)
            return problem, checked.custom_id
        if census.is_repeated(checked.custom_id):
            words = f"{where}custom_id {checked.custom_id[:80]!r} was there before"
            return Problem("duplicate_custom_id", words, line.number, "custom_id"), checked.custom_id
        return None, checked.custom_id

    async def _report(self, record: BatchRecord, number: int, custom_id: str | None, problem: Problem) -> None:
        await self._put(
            record, number, not_run(record.id, number, custom_id, code=problem.code, message=problem.message)
        )

    async def _put(self, record: BatchRecord, number: int, result: Result) -> None:
        await self._store.results.put(record.id, number, result, self._ttl_s(record))

    async def _input(self, record: BatchRecord) -> FileRecord | None:
        tag = self._store.shelf.tag(record.owner)
        found = await self._store.shelf.find(FileRecord, tag, record.input_file)
        return found.record if found else None

    async def _lines(self, file: FileRecord) -> AsyncIterator[Line]:
        splitter = LineSplitter(self._max_line)
        async for data in self._store.contents.read(file):
            for line in splitter.feed(data):
                yield line
        for line in splitter.finish():
            yield line

    async def _census(self, file: FileRecord) -> Census:
        census = Census(secrets.token_bytes(_SALT_BYTES))
        async for line in self._lines(file):
            census.look(line)
        census.close()
        return census

    async def _name(self, record: BatchRecord, id_: str, kind: str, writer: Writer) -> None:
        now = self._store.clock()
        file = FileRecord(
            id=id_,
            owner=record.owner,
            filename=f"{record.id}_{kind}.jsonl",
            purpose="batch_output",
            created=now,
            expires=now + self._store.limits.file_ttl_s,
            bytes=writer.bytes,
            chunks=writer.chunks,
            privacy=record.privacy,
            whole=True,
        )
        try:
            await self._store.shelf.write(file)
        except Conflict:
            return  # another replica was here; its content is the same

    def _refused(self, record: BatchRecord, problem: Problem) -> BatchRecord:
        return replace(advance(record, "fail", self._store.clock(), problem), refused=True)

    def _ttl_s(self, record: BatchRecord) -> float:
        return record.output_expires - self._store.clock()


class _Writes:
    """Some writes at once, not all: the first that fails ends all."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, trace)
        except BaseExceptionGroup as errors:
            # They fail for the same reason, mostly: the broker is away.
            raise errors.exceptions[0] from errors

    async def add(self, write: Coroutine[Any, Any, None]) -> None:
        """Begin a write when there is room."""
        await self._room.acquire()
        self._group.create_task(write).add_done_callback(lambda _: self._room.release())
