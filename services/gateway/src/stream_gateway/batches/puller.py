"""Lines of open batches, taken from their queues in turn, as many at once as the throttle allows."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from stream_core.broker_client import Msg
from stream_core.errors import FrameError, SealError
from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.execute import Executor
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.gauge import Gauge
from stream_gateway.batches.journal import WorkQueue
from stream_gateway.batches.records import BatchRecord
from stream_gateway.batches.store import Store
from stream_gateway.batches.throttle import Rest, Throttle, look

_log = logging.getLogger(__name__)
_MEASURE_S: Final = 0.25
_TAKE_S: Final = 0.1
_LONGEST_REST_S: Final = 5.0
_IDLE_S: Final = 0.5


@dataclass(eq=False)
class Open:
    """A batch that is in progress, as this replica sees it."""

    record: BatchRecord
    queue: WorkQueue
    principal: Principal
    """Its owner, as it is now."""
    running: set[asyncio.Task[None]] = field(default_factory=set)
    empty: bool = False
    """Its queue had nothing the last time."""
    ask_again_at: float = 0.0
    lost: bool = False
    """Its queue could not be asked the last time: it is bound again first."""


class Puller:
    """One replica's lines.

    Args:
        store: where they are.
        executor: runs them.
        gauge: what the engines can take.
        idle: set when a batch has nothing more to take here: it may be complete.
    """

    def __init__(self, store: Store, executor: Executor, gauge: Gauge, idle: asyncio.Event) -> None:
        self._store = store
        self._executor = executor
        self._gauge = gauge
        self._idle = idle
        self._throttle = Throttle(store.limits.max_concurrency)
        self._rest = Rest()
        self._refusals = 0
        self._most = 0
        self.open: dict[str, Open] = {}
        self.closing = False
        """Set when the replica drains: no line is begun."""

    async def join(self, record: BatchRecord, principal: Principal) -> None:
        """Take part in a batch's lines; of one that is joined already, take note of its owner."""
        if batch := self.open.get(record.id):
            batch.principal = principal
        elif not self.closing:
            queue = await self._store.results.queue(record.id, self._store.limits.redeliver_s)
            self.open[record.id] = Open(record, queue, principal)

    async def leave(self, id_: str) -> None:
        """Let go of a batch: what runs of it here is cut off, and goes back into the queue."""
        batch = self.open.pop(id_, None)
        if batch is None:
            return
        for task in batch.running:
            task.cancel()
        if batch.running:
            await asyncio.wait(batch.running)
        await batch.queue.aclose()

    async def drain(self, grace_s: float) -> None:
        """Begin nothing more; lines that still run at the end of the grace go back into the queue."""
        self.closing = True
        running = [task for batch in self.open.values() for task in batch.running]
        if running:
            await asyncio.wait(running, timeout=grace_s)
        for id_ in list(self.open):
            await self.leave(id_)

    async def measure(self) -> None:
        """Look at the load once, and wait for the next time."""
        refusals, self._refusals = self._refusals, 0
        running, self._most = self._most, self._running()
        load = await self._gauge.read(refusals=refusals, running=running)
        before = self._throttle
        self._throttle = look(before, load, time.monotonic())
        if self._throttle.held != before.held and self.open:
            words = "batches wait: interactive requests do" if self._throttle.held else "batches go on"
            _log.info(words, extra={"limit": int(self._throttle.limit), "running": load.running})
        await asyncio.sleep(_MEASURE_S)

    async def pull(self) -> None:
        """Take what there is room for, once, from each batch its share; wait a little when there was nothing.

        Raises:
            StoreAway: the broker is.
        """
        now = time.monotonic()
        resting = now < self._rest.until
        ready = [batch for batch in self.open.values() if batch.ask_again_at <= now and not resting]
        took = 0
        for place, batch in enumerate(ready):
            room = self._throttle.allowed - self._running()
            if room <= 0 or self.closing:
                break
            took += await self._take(batch, max(1, room // (len(ready) - place)))
        if not took:
            await asyncio.sleep(_TAKE_S)

    async def _take(self, batch: Open, count: int) -> int:
        try:
            if batch.lost:
                await batch.queue.aclose()
                batch.queue = await self._store.results.queue(batch.record.id, self._store.limits.redeliver_s)
                batch.lost = False
            messages = await batch.queue.take(count, _TAKE_S)
        except StoreAway:
            # What runs goes on: its results wait for the broker.
            batch.lost = True
            batch.ask_again_at = time.monotonic() + _IDLE_S
            raise
        batch.empty = not messages
        if not self._throttle.allowed or self.closing:
            # Interactive requests began to wait meanwhile.
            for message in messages:
                await message.nak()
            return 0
        if batch.empty:
            batch.ask_again_at = time.monotonic() + _IDLE_S
            if not batch.running:
                self._idle.set()
        for message in messages:
            task = asyncio.create_task(self._run(batch, message))
            batch.running.add(task)
            task.add_done_callback(batch.running.discard)
        self._most = max(self._most, self._running())
        return len(messages)

    async def _run(self, batch: Open, message: Msg) -> None:
        try:
            taken = self._store.results.taken(batch.record.id, message)
        except (FrameError, SealError) as error:
            _log.warning("forged line: %s", error.message, extra={"batch": batch.record.id})
            await message.term()
            return
        redeliver_s = self._store.limits.redeliver_s
        ran = await self._executor.run(batch.record, taken, batch.principal, redeliver_s)
        self._rest = self._rest.after(time.monotonic(), room=ran.room)
        self._refusals += not ran.room
        if ran.rest_s:
            batch.ask_again_at = time.monotonic() + min(ran.rest_s, _LONGEST_REST_S)

    def _running(self) -> int:
        return sum(len(batch.running) for batch in self.open.values())
