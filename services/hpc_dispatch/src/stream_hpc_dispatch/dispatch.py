"""The driver: turns what happens into the plan's events and carries out its actions. Thin: it decides nothing."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stream_core import tickets
from stream_core.envelope.keys import SECRET_BYTES
from stream_core.errors import ModelNotFound
from stream_core.ids import new_id, to_hex
from stream_core.rpc import hpc_dispatch_pb2
from stream_core.telemetry import Once
from stream_core.trace_context import CURRENT, outgoing
from stream_core.wire import subjects
from stream_core.wire.job import PilotJob
from stream_hpc_dispatch import plan
from stream_hpc_dispatch.choice import choose
from stream_hpc_dispatch.clusters.base import Cluster, Ended, JobHandle, Place, SubmitFailed
from stream_hpc_dispatch.diary import Diary
from stream_hpc_dispatch.feed import PoolFeed
from stream_hpc_dispatch.jobs import Pool, build_job
from stream_hpc_dispatch.leadership import DeposedError, Leadership
from stream_hpc_dispatch.leases import AnnouncementHeard, Lease, Leases, StatusHeard
from stream_hpc_dispatch.plan import PoolKey
from stream_hpc_dispatch.pool import model_state, snapshot
from stream_hpc_dispatch.records import Record
from stream_hpc_dispatch.running import Running, facts, first_of, record_of
from stream_hpc_dispatch.vault import Found, Vault

_log = logging.getLogger(__name__)
_WRITTEN_S: Final = 2.0
"""How long a start, or the end, waits for the broker to write a lease down."""
_HEALTH_S: Final = 15.0
"""Between two looks at a cluster."""
_LEAVE_S: Final = 25.0
"""At the end, how long jobs have to end: some clusters tell it late, or never. The next run looks after the rest."""
_SILENT_S: Final = 30.0
"""A worker that was told to stop, and has said nothing for so long, has ended, whatever its cluster tells."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What goes into every lease."""

    relays: list[str]
    private_key: str = field(repr=False)
    """PEM: signs the relay tickets."""
    ca_file: str = ""


class Dispatch:
    """Owns the leases.

    Args:
        pools: of the deployment.
        clusters: by name; one for each cluster that has a pool.
        promises: what goes into every lease.
        vault: keeps the leases for the next run.
        specs: what the deployment says of these clusters.
        diary: the file that keeps what the plan must not forget.
        limits: the plan's clocks.
        clock: gives unix seconds.
        publish: sends a message to a subject of the broker; it may be lost, and never raises.
        publish_interval_s: between two snapshots of the pool.
        refresh_s: how often an unchanged lease is written down again.
        look_s: how often a cluster is asked where a job stands whose worker has not spoken.
        leadership: of this replica, where there are others; it was won. While it is in doubt nothing is done, and what
            happened is told to the plan afterwards.
    """

    def __init__(
        self,
        pools: Mapping[PoolKey, Pool],
        clusters: Mapping[str, Cluster],
        promises: Promises,
        vault: Vault,
        *,
        specs: Iterable[plan.ClusterSpec],
        diary: Diary,
        limits: plan.Limits,
        clock: Callable[[], float],
        publish: Callable[[str, bytes], Coroutine[Any, Any, None]],
        publish_interval_s: float,
        refresh_s: float,
        look_s: float,
        leadership: Leadership | None = None,
    ) -> None:
        self._leadership = leadership
        self._pools = pools
        self._clusters = clusters
        self._promises = promises
        self._vault = vault
        self._refresh_s = refresh_s
        self._clock = clock
        self._publish = publish
        self._look_s = look_s
        self._diary = diary
        self._state = diary.read(
            plan.State(
                tuple(plan.PoolState(pool.spec) for pool in pools.values()),
                limits,
                clusters=tuple(plan.ClusterState(spec) for spec in specs),
            ),
            clock(),
        )
        self._faults = Once(_log)
        self._leases = Leases(self._faults.note)
        self._running: dict[int, Running] = {}
        self._jobs: asyncio.TaskGroup | None = None
        self._started = asyncio.Event()
        self._leaving = asyncio.Event()
        self._deaf_at = 0.0
        self._ghosts: dict[int, float] = {}
        """When the leases end of workers that ended by silence: one that speaks again is told to stop."""
        self.feed = PoolFeed(self.snapshot, revision=int(clock() * 1000), interval_s=publish_interval_s)
        """The pool for the gateways. Its revisions start at the time, so they grow across restarts, too."""

    async def run(self, stop: asyncio.Event, *, found: Found, tick_s: float, listening: Callable[[], bool]) -> None:
        """Plan and act until told to stop, and until every job has ended, or is left to another replica. Called once.

        Args:
            stop: set to stop.
            found: the leases that an earlier run left.
            tick_s: how often the plan looks at its clocks.
            listening: whether the broker is connected.
        """
        try:
            async with asyncio.TaskGroup() as self._jobs:
                await self._adopt(found)
                self.feed.publish()
                self._started.set()
                routines = [self._jobs.create_task(self._tick(tick_s, listening))]
                for name, cluster in self._clusters.items():
                    routines.append(self._jobs.create_task(self._watch_cluster(name, cluster)))
                await stop.wait()
                for routine in routines:
                    routine.cancel()
                leave_s = 0.0
                if self._leadership is None:
                    self._play(plan.StopRequested(self._clock()))
                    leave_s = _LEAVE_S
                leaving = asyncio.get_running_loop().call_later(leave_s, self._leaving.set)
            leaving.cancel()
        finally:
            for cluster in self._clusters.values():
                await cluster.close()
        if not await self._vault.settled(within_s=_WRITTEN_S):
            _log.warning("the broker did not take the last word on all leases; the next start will look after them")

    @property
    def state(self) -> plan.State:
        """What the plan knows."""
        return self._state

    async def watch(self) -> AsyncIterator[hpc_dispatch_pb2.Pool]:
        """Yield the pool, and each newer one; none before it is known what an earlier run left."""
        await self._started.wait()
        async for pool in self.feed.watch():
            yield pool

    def snapshot(self) -> hpc_dispatch_pb2.Pool:
        """Draw the pool as it is."""
        return snapshot(self._state, self._leases.of, lambda pool: self._pools[pool.spec.key].offers)

    async def request(
        self, model: str, cluster: str = "", *, waiting: int = 0, gateway: str = ""
    ) -> hpc_dispatch_pb2.ModelState:
        """See to it that a worker of a model is there or on its way.

        Args:
            model: the name users see.
            cluster: empty: the one that `choice` prefers.
            waiting: requests of that gateway that wait for it.
            gateway: its id.

        Raises:
            ModelNotFound: no pool offers it.
        """
        await self._started.wait()
        now, key = self._clock(), PoolKey(cluster, model)
        try:
            key = key if cluster else choose(self._state, model, now, waiting=waiting, gateway=gateway)
            self._apply(plan.Requested(now, key, waiting, gateway, anywhere=not cluster))
            return model_state(self._state, self._state.pool(key))
        except LookupError:
            where = f" on cluster {cluster!r}" if cluster else ""
            raise ModelNotFound(f"no pool offers model {model!r}{where}", param="model") from None

    def hear(self, subject: str, message: bytes) -> None:
        """Take one message of `subjects.ALL_LEASES_OUT`."""
        if not self._started.is_set() or not self._acts:
            return  # the leases of an earlier run, or of another leader, are not known; their workers say it all again
        for heard in self._leases.hear(subject, message):
            now = self._clock()
            if heard.pilot in self._ghosts:
                self._tell_to_stop(heard.pilot)
                continue
            self._running[heard.pilot].heard_at = now
            match heard:
                case AnnouncementHeard(pilot, restarted):
                    self._apply(plan.Announced(now, pilot, restarted))
                case StatusHeard(pilot, status):
                    self._apply(
                        plan.StatusSeen(
                            now,
                            pilot,
                            engine_ready=status.engine_ready,
                            draining=status.draining,
                            running=status.running,
                            note=status.note,
                            failed=status.failed,
                            waiting=status.waiting,
                            cache_use=status.cache_use,
                            first_token_ms=status.first_token_ms,
                            served=status.served,
                        )
                    )
            if self._running[heard.pilot].stop_asked:
                self._tell_to_stop(heard.pilot)  # it has not heard the first one

    async def _tick(self, tick_s: float, listening: Callable[[], bool]) -> None:
        while True:
            self._judge_silence(self._clock(), listening=listening())
            self._apply(plan.Tick(self._clock(), listening()))
            await asyncio.sleep(tick_s)

    def _judge_silence(self, now: float, *, listening: bool) -> None:
        if not listening:
            self._deaf_at = now
        for running in self._running.values():
            since = max(running.heard_at, running.stop_asked_at, self._deaf_at)
            if running.stop_asked and running.heard_at and now - since >= _SILENT_S:
                running.silent.set()
        for pilot in [pilot for pilot, expires in self._ghosts.items() if expires < now]:
            del self._ghosts[pilot]
            self._leases.revoke(pilot)

    async def _watch_cluster(self, name: str, cluster: Cluster) -> None:
        while True:
            health = await cluster.health()
            self._apply(plan.ClusterSeen(self._clock(), name, health.online, health.reason))
            await asyncio.sleep(_HEALTH_S)

    async def _look(self, pilot: int, lease: Lease, running: Running) -> None:
        """Follow a job through its cluster's queue, until its worker speaks or it has ended."""
        while pilot in self._running and running.handle is not None and not lease.announced:
            view = await running.cluster.look(running.handle)
            if pilot in self._running and view.place is not Place.UNKNOWN:
                queued = view.place is Place.QUEUED
                event = plan.JobSeen(self._clock(), pilot, queued, view.queue_position, view.starts, view.words)
                self._apply(event)
            await asyncio.sleep(self._look_s)

    @property
    def _acts(self) -> bool:
        return self._leadership is None or self._leadership.acts

    def _apply(self, event: plan.Event) -> None:
        """Tell the plan something, unless leadership is in doubt: all that comes here is said again and again."""
        if self._acts:
            self._play(event)

    def _play(self, event: plan.Event) -> None:
        before = self._state
        self._state, actions = plan.step(before, event)
        # Before anything is started: what it may cost is to be known to the next run.
        self._diary.write(self._state)
        self._tell_what_blocks(before)
        for action in actions:
            match action:
                case plan.StartJob():
                    self._start(action)
                case plan.StopJob(pilot):
                    self._stop(pilot)
                case plan.ReportFailure():
                    self._report(action)
        self._write_down()
        self.feed.changed()

    def _tell_what_blocks(self, before: plan.State) -> None:
        for old, pool in zip(before.pools, self._state.pools, strict=True):
            if pool.blocked and not old.blocked:
                _log.warning("no worker is started: %s", pool.blocked, extra=pool.spec.key._asdict())

    def _write_down(self) -> None:
        """Keep what has changed of the leases, and now and then what has not."""
        now = self._clock()
        for pool in self._state.pools:
            for pilot in pool.pilots:
                running, lease = self._running[pilot.number], self._leases.of(pilot.number)
                news = (pilot.phase, pilot.stopping, running.handle, lease.announcement)
                if news != running.kept or now - running.kept_at >= self._refresh_s:
                    running.kept, running.kept_at = news, now
                    self._vault.keep(record_of(pilot, running, lease, self._pools[running.key]))

    async def _adopt(self, found: Found) -> None:
        """Go on with the leases of an earlier run whose jobs still run; end those that nobody wants."""
        adoptees: list[plan.Adoptee] = []
        for record in sorted(found.records, key=lambda record: record.expires):
            key = PoolKey(record.cluster, record.model)
            handle = await self._recover(record)
            if handle is None:
                continue
            if key not in self._pools:
                self._spawn(self._end(record, handle, "no pool wants it any more"))
                continue
            number = self._state.next_number + len(adoptees)
            lease = Lease(record.lease, number, record.bootstrap_secret)
            lease.restore(record.announcement, record.last_sequence, record.given_up)
            self._leases.grant(lease)
            running = Running(key, record.expires, self._clusters[record.cluster], handle)
            self._running[number] = running
            wanted = record.fingerprint == self._pools[key].fingerprint and not record.stopping
            phase, announced = plan.Phase(record.phase), record.announcement is not None
            # What the diary knows of it is counted as spent already.
            ran_from = None if self._diary.found else record.ran_from
            adoptees.append(plan.Adoptee(number, key, record.expires, phase, announced, wanted, ran_from))
            _log.info("took a worker over", extra={**facts(key, lease), "wanted": wanted})
            self._spawn(self._follow(number, lease, running))
        for record in found.older:
            handle = await self._recover(record)
            if handle is not None:
                self._spawn(self._end(record, handle, "its record is an older copy"))
        self._play(plan.Adopted(self._clock(), tuple(adoptees)))

    async def _recover(self, record: Record) -> JobHandle | None:
        """Find a record's job; the record of one that is gone is removed."""
        cluster = self._clusters.get(record.cluster)
        if cluster is None:
            _log.error(
                "a worker of a cluster that can't be reached any more",
                extra={"lease": to_hex(record.lease), "cluster": record.cluster, "backend": record.backend},
            )
            return None
        handle = await cluster.recover(to_hex(record.lease), JobHandle(record.handle) if record.handle else None)
        if handle is None:
            _log.info("a worker of an earlier run is gone", extra={"lease": to_hex(record.lease)})
            self._vault.forget(record.lease)
        return handle

    async def _end(self, record: Record, handle: JobHandle, reason: str) -> None:
        """Stop a job that is nobody's, and forget it."""
        _log.warning("stopping a worker of an earlier run: %s", reason, extra={"lease": to_hex(record.lease)})
        cluster = self._clusters[record.cluster]
        await cluster.stop(handle)
        if await first_of(cluster.observe(handle), self._leaving) is not None:
            self._vault.forget(record.lease)

    def _start(self, action: plan.StartJob) -> None:
        lease = Lease(new_id(), action.pilot, secrets.token_bytes(SECRET_BYTES))
        self._leases.grant(lease)
        running = Running(action.key, action.expires, self._clusters[action.key.cluster])
        self._running[action.pilot] = running
        _log.info("starting a worker", extra=facts(action.key, lease))
        self._spawn(self._run(action, lease, running))

    async def _run(self, action: plan.StartJob, lease: Lease, running: Running) -> None:
        """Follow one job from its submission to its end."""
        # What comes later, a successor's start say, has nothing to do with the request that had this one started.
        trace = outgoing()
        CURRENT.set(None)
        # First the record: whatever happens after it, the next run knows of this job.
        if not await self._recorded(lease):
            return
        now = self._clock()
        job = build_job(
            self._pools[action.key],
            lease_id=lease.id,
            bootstrap_secret=lease.bootstrap_secret,
            ticket=tickets.issue(
                self._promises.private_key, lease_id=lease.id, now=now, lifetime_s=action.expires - now
            ),
            expires=action.expires,
            relays=self._promises.relays,
            ca_file=self._promises.ca_file,
            trace=trace,
        )
        try:
            running.handle = await self._submit(job, running.cluster)
        except SubmitFailed as error:
            await self._ended(action.pilot, lease, running, Ended(None, error.message), started=False)
            return
        self._write_down()
        if running.stop_asked:
            self._spawn(running.cluster.stop(running.handle))
        await self._follow(action.pilot, lease, running)

    async def _in_charge(self) -> None:
        """Wait until this replica may act; raises `DeposedError` when that can't be any more."""
        if self._leadership is not None:
            await self._leadership.acting()

    async def _recorded(self, lease: Lease) -> bool:
        """Wait until the next run would know of a job; where another replica could lead, for as long as it takes."""
        written = await self._vault.settled(lease.id, within_s=_WRITTEN_S)
        while self._leadership is not None and not written:
            if self._leaving.is_set():
                return False
            written = await self._vault.settled(lease.id, within_s=_WRITTEN_S)
        await self._in_charge()
        return True

    async def _submit(self, job: PilotJob, cluster: Cluster) -> JobHandle:
        """Submit a job; one that came to be while leadership was lost is stopped: the new leader has looked before."""
        submitting = asyncio.ensure_future(cluster.submit(job))
        try:
            handle = await asyncio.shield(submitting)
            await self._in_charge()
        except (asyncio.CancelledError, DeposedError):
            if self._leadership is not None:
                with contextlib.suppress(SubmitFailed):
                    await cluster.stop(await submitting)
            raise
        return handle

    async def _follow(self, pilot: int, lease: Lease, running: Running) -> None:
        """Wait for a job's end."""
        if running.handle is None:
            raise RuntimeError("a job without handle")
        looking = asyncio.create_task(self._look(pilot, lease, running))
        try:
            ended = await first_of(running.cluster.observe(running.handle), self._leaving, running.silent)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if ended is not None:
            await self._ended(pilot, lease, running, ended)
        elif running.silent.is_set():
            await self._presume_ended(pilot, lease, running)
        else:
            _log.warning("left to the next run: its cluster told no end of it", extra=facts(running.key, lease))

    async def _presume_ended(self, pilot: int, lease: Lease, running: Running) -> None:
        """Free a silent worker's place; lease and record stay, so that this run or the next one can still stop it."""
        words = "its worker is silent, and its cluster told no end of it"
        _log.warning("a worker's job counts as ended: %s", words, extra=facts(running.key, lease))
        await self._in_charge()
        self._play(plan.JobEnded(self._clock(), pilot, None, "", started=True, reason=words))
        del self._running[pilot]
        self._ghosts[pilot] = running.expires

    async def _ended(self, pilot: int, lease: Lease, running: Running, ended: Ended, *, started: bool = True) -> None:
        _log.info("a worker's job ended", extra={**facts(running.key, lease), "exit_code": ended.exit_code})
        await self._in_charge()
        now = self._clock()
        self._play(plan.JobEnded(now, pilot, ended.exit_code, ended.tail, started=started, reason=ended.reason))
        del self._running[pilot]
        self._leases.revoke(pilot)
        self._vault.forget(lease.id)

    def _stop(self, pilot: int) -> None:
        running = self._running[pilot]
        if not running.stop_asked:
            running.stop_asked, running.stop_asked_at = True, self._clock()
        self._tell_to_stop(pilot)
        if running.handle is not None:
            self._spawn(running.cluster.stop(running.handle))

    def _tell_to_stop(self, pilot: int) -> None:
        """Send STOP to a worker over its own channel: some clusters offer no other way."""
        lease = self._leases.of(pilot)
        if frame := lease.stop_frame(int(self._clock() * 1000)):
            self._spawn(self._publish(subjects.lease_in(lease.id), frame))

    def _report(self, failure: plan.ReportFailure) -> None:
        _log.error(
            "a worker failed: %s",
            failure.reason,
            extra={
                **facts(failure.key, self._leases.of(failure.pilot)),
                "failures_in_a_row": failure.failures,
                "retry_in_s": round(failure.retry_in_s, 3),
            },
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._jobs is None:
            raise RuntimeError("an action before `run`")
        self._jobs.create_task(work)
