"""The runner: looks after open batches, from their checking to their result files.

Every replica may have one. What must be done once per batch (checking its file, writing its result files) is held by
one of them at a time; lines are shared through the work queue (`puller`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from stream_core.broker_client import Msg
from stream_core.cancellation import heed_cancellation
from stream_core.ids import new_id, to_hex
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.clerk import Clerk
from stream_gateway.batches.execute import Executor
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.batches.gauge import Gauge
from stream_gateway.batches.puller import Puller
from stream_gateway.batches.records import BatchRecord, Problem
from stream_gateway.batches.shelf import Found
from stream_gateway.batches.standstill import stands_still
from stream_gateway.batches.states import CLOSED, Event, advance, claim
from stream_gateway.batches.store import NUDGE, Store

_log = logging.getLogger(__name__)
_PAUSE_S: Final = 0.5
_HOLD_S: Final = 10.0
_STRAY_S: Final = 60.0

Deed = Callable[[BatchRecord], Awaitable[BatchRecord]]


class Runner:
    """One replica's runner.

    Args:
        store: where everything is.
        clerk: checks and finishes batches.
        executor: runs lines.
        entrance: who the owners are now.
        gauge: what the engines can take.
    """

    def __init__(self, store: Store, clerk: Clerk, executor: Executor, entrance: Entrance, gauge: Gauge) -> None:
        self._store = store
        self._clerk = clerk
        self._entrance = entrance
        self._look_now = asyncio.Event()
        self._puller = Puller(store, executor, gauge, self._look_now)
        self._id = to_hex(new_id())
        self._deeds: dict[str, asyncio.Task[None]] = {}
        self._strays: dict[str, float] = {}

    async def run(self) -> None:
        """Look after batches until cancelled."""
        await self._store.client.subscribe(NUDGE, cb=self._on_nudge)
        async with asyncio.TaskGroup() as tasks:
            for work in (self._look, self._puller.measure, self._puller.pull):
                tasks.create_task(_for_ever(work))

    async def watch(self) -> None:
        """Run nothing, and only tell other replicas when interactive requests wait here, until cancelled."""
        await _for_ever(self._puller.measure)

    async def drain(self, grace_s: float) -> None:
        """Begin nothing more; lines that still run at the end of the grace go back into the queue."""
        await self._puller.drain(grace_s)
        deeds = list(self._deeds.values())
        for task in deeds:
            task.cancel()
        if deeds:
            await asyncio.wait(deeds)

    async def _look(self) -> None:
        """Look at each open batch once, and wait for the next time, or a nudge."""
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
        for id_ in self._puller.open.keys() - seen:
            await self._puller.leave(id_)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._store.limits.look_s):
                await self._look_now.wait()

    async def _see(self, found: Found[BatchRecord]) -> None:
        record = found.record
        if record.status in CLOSED:
            await self._puller.leave(record.id)
            await self._clean(record)
        elif record.status in {"validating", "in_progress"} and self._store.clock() >= record.expires:
            await self._change(found, "expire")
        elif record.status in {"validating", "in_progress"} and self._owner(record) is None:
            await self._change(found, "fail", _gone(record))
        elif record.status == "in_progress":
            await self._see_running(found)
        elif record.status == "validating":
            await self._hold(found, self._clerk.validate)
        else:
            await self._puller.leave(record.id)
            if not await stands_still(self._store.journal):
                await self._hold(found, self._clerk.finalize)

    async def _see_running(self, found: Found[BatchRecord]) -> None:
        record = found.record
        principal = self._owner(record)
        if principal is None:
            return  # revoked at this very moment: the next look ends the batch
        await self._puller.join(record, principal)
        batch = self._puller.open.get(record.id)
        if batch and batch.empty and (await self._store.results.counts(record.id)).done >= record.total:
            await self._change(found, "finish")

    def _owner(self, record: BatchRecord) -> Principal | None:
        """Find what a batch's owner may use now, for the project that it was made for."""
        return self._entrance.of(record.owner, record.project)

    async def _change(self, found: Found[BatchRecord], event: Event, *problems: Problem) -> None:
        await self._puller.leave(found.record.id)
        changed = advance(found.record, event, self._store.clock(), *problems)
        with contextlib.suppress(Conflict):  # another replica was quicker
            await self._store.shelf.write(changed, revision=found.revision)
        await self._store.nudge()

    async def _hold(self, found: Found[BatchRecord], deed: Deed) -> None:
        """Do what one replica does for all, unless another one is at it."""
        record = found.record
        if record.id in self._deeds or self._puller.closing:
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

    async def _do(self, held: Found[BatchRecord], deed: Deed) -> None:
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
                await self._clean(done)
        except Conflict:
            _log.info("another hand on this batch", extra={"batch": record.id})
        except StoreAway as error:
            _log.info("%s", error.message, extra={"batch": record.id})
        except Exception:  # noqa: BLE001  (a bug in batches must not end interactive streams)
            _log.exception("batch stumbled", extra={"batch": record.id})
        finally:
            work.cancel()
            await asyncio.wait([work])
        await self._store.nudge()

    async def _clean(self, record: BatchRecord) -> None:
        """Remove what a closed batch no longer needs, or leave it to a later look while a backup is taken."""
        if not await stands_still(self._store.journal):
            await self._clerk.clean(record)

    async def _on_nudge(self, _message: Msg) -> None:
        self._look_now.set()


def _gone(record: BatchRecord) -> Problem:
    words = f"the key {record.owner} was revoked"
    if record.project:
        words += f", or may not work for the project {record.project} any more"
    return Problem("key_revoked", words)


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        heed_cancellation()
        try:
            await work()
        except StoreAway as error:
            _log.info("%s", error.message)
            await asyncio.sleep(_PAUSE_S)
        except Exception:  # noqa: BLE001  (as above)
            _log.exception("batches stumbled")
            await asyncio.sleep(_PAUSE_S)
