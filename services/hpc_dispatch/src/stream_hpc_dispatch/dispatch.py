"""The driver: turns what happens into the plan's events and carries out its actions. Thin: it decides nothing."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stream_core import tickets
from stream_core.envelope.keys import SECRET_BYTES
from stream_core.errors import ModelNotFound
from stream_core.ids import new_id, to_hex
from stream_core.rpc import hpc_dispatch_pb2
from stream_core.telemetry import Once
from stream_hpc_dispatch import plan
from stream_hpc_dispatch.clusters.base import Cluster, JobHandle, SubmitFailed
from stream_hpc_dispatch.feed import PoolFeed
from stream_hpc_dispatch.jobs import Pool, build_job
from stream_hpc_dispatch.leases import AnnouncementHeard, Lease, Leases, StatusHeard
from stream_hpc_dispatch.plan import PoolKey
from stream_hpc_dispatch.pool import model_state, snapshot

_log = logging.getLogger(__name__)
_PREFERENCE: Final = ("hot", "starting", "cold", "offline")


@dataclass(frozen=True, slots=True)
class Promises:
    """What goes into every lease."""

    relays: list[str]
    private_key: str = field(repr=False)
    """PEM: signs the relay tickets."""
    ca_file: str = ""


@dataclass(slots=True)
class _Running:
    cluster: Cluster
    handle: JobHandle | None = None
    stop_asked: bool = False


class Dispatch:
    """Owns the leases.

    Args:
        pools: of the deployment.
        clusters: by name; one for each cluster that has a pool.
        promises: what goes into every lease.
        limits: the plan's clocks.
        clock: gives unix seconds.
        publish_interval_s: between two snapshots of the pool.
    """

    def __init__(
        self,
        pools: Mapping[PoolKey, Pool],
        clusters: Mapping[str, Cluster],
        promises: Promises,
        *,
        limits: plan.Limits,
        clock: Callable[[], float],
        publish_interval_s: float,
    ) -> None:
        self._pools = pools
        self._clusters = clusters
        self._promises = promises
        self._clock = clock
        self._state = plan.State(tuple(plan.PoolState(pool.spec) for pool in pools.values()), limits)
        self._faults = Once(_log)
        self._leases = Leases(self._faults.note)
        self._running: dict[int, _Running] = {}
        self._jobs: asyncio.TaskGroup | None = None
        self._started = asyncio.Event()
        self.feed = PoolFeed(self.snapshot, revision=int(clock() * 1000), interval_s=publish_interval_s)
        """The pool for the gateways. Its revisions start at the time, so they grow across restarts, too."""

    async def run(self, stop: asyncio.Event, *, tick_s: float, listening: Callable[[], bool]) -> None:
        """Plan and act until told to stop; returns when every job has ended. Called once.

        Args:
            stop: set to stop.
            tick_s: how often the plan looks at its clocks.
            listening: whether the broker is connected.
        """
        try:
            async with asyncio.TaskGroup() as self._jobs:
                ticking = self._jobs.create_task(self._tick(tick_s, listening))
                self._started.set()
                await stop.wait()
                ticking.cancel()
                self._apply(plan.StopRequested(self._clock()))
        finally:
            for cluster in self._clusters.values():
                await cluster.close()

    def snapshot(self) -> hpc_dispatch_pb2.Pool:
        """Draw the pool as it is."""
        return snapshot(self._state, self._leases.of, lambda pool: self._pools[pool.spec.key].offers)

    async def request(self, model: str, cluster: str = "") -> hpc_dispatch_pb2.ModelState:
        """See to it that a worker of a model is there or on its way.

        Args:
            model: the name users see.
            cluster: empty: the one that is the furthest.

        Raises:
            ModelNotFound: no pool offers it.
        """
        await self._started.wait()
        fitting = [pool for pool in self._state.pools if _fits(pool, model, cluster)]
        if not fitting:
            where = f" on cluster {cluster!r}" if cluster else ""
            raise ModelNotFound(f"no pool offers model {model!r}{where}", param="model")
        best = min(fitting, key=lambda pool: _PREFERENCE.index(model_state(pool).state))
        self._apply(plan.Requested(self._clock(), best.spec.key))
        return model_state(self._state.pool(best.spec.key), stopping=self._state.stopping)

    def hear(self, subject: str, message: bytes) -> None:
        """Take one message of `subjects.ALL_LEASES_OUT`."""
        for heard in self._leases.hear(subject, message):
            now = self._clock()
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
                        )
                    )

    async def _tick(self, tick_s: float, listening: Callable[[], bool]) -> None:
        while True:
            self._apply(plan.Tick(self._clock(), listening()))
            await asyncio.sleep(tick_s)

    def _apply(self, event: plan.Event) -> None:
        self._state, actions = plan.step(self._state, event)
        for action in actions:
            match action:
                case plan.StartJob():
                    self._start(action)
                case plan.StopJob(pilot):
                    self._stop(pilot)
                case plan.ReportFailure():
                    self._report(action)
        self.feed.changed()

    def _start(self, action: plan.StartJob) -> None:
        lease = Lease(new_id(), action.pilot, secrets.token_bytes(SECRET_BYTES))
        self._leases.grant(lease)
        running = self._running[action.pilot] = _Running(self._clusters[action.key.cluster])
        _log.info("starting a worker", extra=_facts(action.key, lease))
        self._spawn(self._run(action, lease, running))

    async def _run(self, action: plan.StartJob, lease: Lease, running: _Running) -> None:
        """Follow one job from its submission to its end."""
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
        )
        exit_code: int | None = None
        try:
            running.handle = await running.cluster.submit(job)
        except SubmitFailed as error:
            tail = error.message
        else:
            if running.stop_asked:
                self._spawn(running.cluster.stop(running.handle))
            ended = await running.cluster.observe(running.handle)
            exit_code, tail = ended.exit_code, ended.tail
        _log.info("a worker's job ended", extra={**_facts(action.key, lease), "exit_code": exit_code})
        del self._running[action.pilot]
        self._apply(plan.JobEnded(self._clock(), action.pilot, exit_code, tail))
        self._leases.revoke(action.pilot)

    def _stop(self, pilot: int) -> None:
        running = self._running[pilot]
        running.stop_asked = True
        if running.handle is not None:
            self._spawn(running.cluster.stop(running.handle))

    def _report(self, failure: plan.ReportFailure) -> None:
        _log.error(
            "a worker failed: %s",
            failure.reason,
            extra={
                **_facts(failure.key, self._leases.of(failure.pilot)),
                "failures_in_a_row": failure.failures,
                "retry_in_s": round(failure.retry_in_s, 3),
            },
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._jobs is None:
            raise RuntimeError("an action before `run`")
        self._jobs.create_task(work)


def _fits(pool: plan.PoolState, model: str, cluster: str) -> bool:
    key = pool.spec.key
    return key.model == model and cluster in {"", key.cluster}


def _facts(key: PoolKey, lease: Lease) -> dict[str, object]:
    return {"lease": to_hex(lease.id), "cluster": key.cluster, "model": key.model}
