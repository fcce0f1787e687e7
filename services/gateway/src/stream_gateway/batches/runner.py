"""The runner: looks after open batches and pulls their lines as fast as interactive requests allow.

Every replica may have one. What must be done once per batch (checking its file, writing its result files) is held by
one of them at a time; lines are shared through the work queue.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from stream_core.broker_client import Msg
from stream_core.errors import FrameError, SealError
from stream_core.ids import new_id, to_hex
from stream_gateway.auth import Keyring, Principal
from stream_gateway.batches.clerk import Clerk
from stream_gateway.batches.execute import Executor
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.batches.gauge import Gauge
from stream_gateway.batches.journal import WorkQueue
from stream_gateway.batches.records import BatchRecord, Problem
from stream_gateway.batches.shelf import Found
from stream_gateway.batches.states import CLOSED, Event, advance, claim
from stream_gateway.batches.store import NUDGE, Store
from stream_gateway.batches.throttle import Throttle, look

_log = logging.getLogger(__name__)
_LOOK_S: Final = 0.25
_TAKE_S: Final = 0.1
_IDLE_S: Final = 0.5
_HOLD_S: Final = 10.0
_STRAY_S: Final = 60.0


@dataclass(eq=False)
class _Open:
    """A batch that is in progress, as this replica sees it."""

    record: BatchRecord
    queue: WorkQueue
    principal: Principal
    running: set[asyncio.Task[None]] = field(default_factory=set)
    empty: bool = False
    """Its queue had nothing the last time."""
    ask_again_at: float = 0.0


class Runner:
    """One replica's runner.

    Args:
        store: where everything is.
        clerk: checks and finishes batches.
        executor: runs lines.
        keyring: who the owners are now.
        gauge: what the engines can take.
    """

    def __init__(self, store: Store, clerk: Clerk, executor: Executor, keyring: Keyring, gauge: Gauge) -> None:
        self._store = store
        self._clerk = clerk
        self._executor = executor
        self._keyring = keyring
        self._gauge = gauge
        self._id = to_hex(new_id())
        self._open: dict[str, _Open] = {}
        self._deeds: dict[str, asyncio.Task[None]] = {}
        self._strays: dict[str, float] = {}
        self._throttle = Throttle(store.limits.max_concurrency)
        self._refusals = 0
        self._look_now = asyncio.Event()
        self._closing = False

    async def run(self) -> None:
        """Look after batches until cancelled."""
        await self._store.client.subscribe(NUDGE, cb=self._on_nudge)
        async with asyncio.TaskGroup() as tasks:
            for work in (self._look, self._measure, self._pull):
                tasks.create_task(self._for_ever(work))

    async def watch(self) -> None:
        """Run nothing, and only tell other replicas when interactive requests wait here, until cancelled."""
        await self._for_ever(self._measure)

    async def drain(self, grace_s: float) -> None:
        """Begin nothing more; lines that still run at the end of the grace go back into the queue."""
        self._closing = True
        running = [task for batch in self._open.values() for task in batch.running]
        if running:
            await asyncio.wait(running, timeout=grace_s)
        for id_ in list(self._open):
            await self._leave(id_)
        for task in list(self._deeds.values()):
            task.cancel()

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreAway as error:
                _log.info("%s", error.message)
                await asyncio.sleep(_IDLE_S)
            except Exception:  # noqa: BLE001  (a bug in batches must not end interactive streams)
                _log.exception("batches stumbled")
                await asyncio.sleep(_IDLE_S)

    # What is open

    async def _look(self) -> None:
        self._look_now.clear()
        seen = set()
        for tag, id_ in await self._store.shelf.open_batches():
            found = await self._store.shelf.find(BatchRecord, tag, id_)
            if found is not None:
                seen.add(id_)
                await self._see(found)
            elif time.monotonic() - self._strays.setdefault(id_, time.monotonic()) > _STRAY_S:
                await self._store.shelf.mark_closed(tag, id_)
                del self._strays[id_]
        for id_ in self._open.keys() - seen:
            await self._leave(id_)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._store.limits.look_s):
                await self._look_now.wait()

    async def _see(self, found: Found[BatchRecord]) -> None:
        record = found.record
        if record.status in CLOSED:
            await self._leave(record.id)
            await self._clerk.clean(record)
        elif record.status in {"validating", "in_progress"} and self._store.clock() >= record.expires:
            await self._change(found, "expire")
        elif record.status == "in_progress":
            await self._see_running(found)
        elif record.status == "validating":
            await self._hold(found, self._clerk.validate)
        else:
            await self._leave(record.id)
            await self._hold(found, self._clerk.finalize)

    async def _see_running(self, found: Found[BatchRecord]) -> None:
        record = found.record
        principal = self._keyring.of(record.owner)
        if principal is None:
            words = f"the key {record.owner} was revoked"
            await self._change(found, "fail", Problem("key_revoked", words))
            return
        batch = self._open.get(record.id)
        if batch is None:
            if self._closing:
                return
            queue = await self._store.results.queue(record.id, self._store.limits.redeliver_s)
            self._open[record.id] = _Open(record, queue, principal)
            return
        batch.principal = principal
        if batch.empty and (await self._store.results.counts(record.id)).done >= record.total:
            await self._change(found, "finish")

    async def _change(self, found: Found[BatchRecord], event: Event, *problems: Problem) -> None:
        await self._leave(found.record.id)
        changed = advance(found.record, event, self._store.clock(), *problems)
        with contextlib.suppress(Conflict):
            await self._store.shelf.write(changed, revision=found.revision)
        await self._store.nudge()

    async def _leave(self, id_: str) -> None:
        """Let go of a batch: what runs of it is cut off."""
        batch = self._open.pop(id_, None)
        if batch is None:
            return
        for task in batch.running:
            task.cancel()
        if batch.running:
            await asyncio.wait(batch.running)
        await batch.queue.aclose()

    # What one replica does for all

    async def _hold(self, found: Found[BatchRecord], deed: Callable[[BatchRecord], Awaitable[BatchRecord]]) -> None:
        record = found.record
        if record.id in self._deeds or self._closing:
            return
        held = claim(record, self._id, self._store.clock(), _HOLD_S)
        if held is None:
            return
        try:
            revision = await self._store.shelf.write(held, revision=found.revision)
        except Conflict:
            return
        task = asyncio.create_task(self._do(Found(held, revision), deed))
        self._deeds[record.id] = task
        task.add_done_callback(lambda _: self._deeds.pop(record.id, None))

    async def _do(self, held: Found[BatchRecord], deed: Callable[[BatchRecord], Awaitable[BatchRecord]]) -> None:
        record, revision = held.record, held.revision
        work = asyncio.ensure_future(deed(record))
        try:
            while not (await asyncio.wait([work], timeout=_HOLD_S / 3))[0]:
                record = replace(record, held_until=self._store.clock() + _HOLD_S)
                revision = await self._store.shelf.write(record, revision=revision)
            done = work.result()
            await self._store.shelf.write(done, revision=revision)
            _log.info("batch", extra={"batch": done.id, "status": done.status, "key": done.owner, "lines": done.total})
            if done.status in CLOSED:
                await self._clerk.clean(done)
        except Conflict:
            _log.info("another hand on this batch", extra={"batch": record.id})
        except StoreAway as error:
            _log.info("%s", error.message, extra={"batch": record.id})
        except Exception:  # noqa: BLE001  (as in `_for_ever`)
            _log.exception("batch stumbled", extra={"batch": record.id})
        finally:
            work.cancel()
            await asyncio.wait([work])
        await self._store.nudge()

    # Lines

    async def _measure(self) -> None:
        refusals, self._refusals = self._refusals, 0
        load = await self._gauge.read(refusals=refusals, running=self._running())
        before = self._throttle
        self._throttle = look(before, load, time.monotonic())
        if self._throttle.held != before.held and self._open:
            words = "batches wait: interactive requests do" if self._throttle.held else "batches go on"
            _log.info(words, extra={"limit": int(self._throttle.limit), "running": load.running})
        await asyncio.sleep(_LOOK_S)

    async def _pull(self) -> None:
        now = time.monotonic()
        ready = [batch for batch in self._open.values() if batch.ask_again_at <= now]
        took = 0
        for place, batch in enumerate(ready):
            room = self._throttle.allowed - self._running()
            if room <= 0 or self._closing:
                break
            took += await self._take(batch, max(1, room // (len(ready) - place)))
        if not took:
            await asyncio.sleep(_TAKE_S)

    async def _take(self, batch: _Open, count: int) -> int:
        try:
            messages = await batch.queue.take(count, _TAKE_S)
        except StoreAway:
            await self._leave(batch.record.id)
            raise
        batch.empty = not messages
        if batch.empty:
            batch.ask_again_at = time.monotonic() + _IDLE_S
            if not batch.running:
                self._look_now.set()
        for message in messages:
            task = asyncio.create_task(self._run(batch, message))
            batch.running.add(task)
            task.add_done_callback(batch.running.discard)
        return len(messages)

    async def _run(self, batch: _Open, message: Msg) -> None:
        try:
            taken = self._store.results.taken(batch.record.id, message)
        except (FrameError, SealError) as error:
            _log.warning("forged line: %s", error.message, extra={"batch": batch.record.id})
            await message.term()
            return
        redeliver_s = self._store.limits.redeliver_s
        if not await self._executor.run(batch.record, taken, batch.principal, redeliver_s):
            self._refusals += 1

    def _running(self) -> int:
        return sum(len(batch.running) for batch in self._open.values())

    async def _on_nudge(self, _message: Msg) -> None:
        self._look_now.set()
