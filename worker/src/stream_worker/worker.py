"""One lease, from job to end: the engine, the uplink and the requests between them, and what each heartbeat says."""

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp

from stream_core import gen_ai, trace_context, tracing
from stream_core.envelope.keys import WorkerKey, open_secret_of
from stream_core.errors import ConfigError, UpstreamUnavailable
from stream_core.health import serve_health
from stream_core.ids import from_hex
from stream_core.lifecycle import announce_ready
from stream_core.wire.frames import Frame
from stream_core.wire.job import PilotJob
from stream_core.wire.payloads import Failure, Status
from stream_worker import VERSION, meters
from stream_worker.desk import Desk
from stream_worker.engine import engine_socket
from stream_worker.engine_life import EngineLife
from stream_worker.serve import Herald, Service
from stream_worker.settings import WorkerSettings
from stream_worker.uplink import Uplink, hello

_log = logging.getLogger(__name__)
_SOFTWARE: Final = f"stream-worker/{VERSION}"
_STARTING: Final = Failure(code="worker_not_ready", message="the engine is starting", retryable=True, status=503)
_SHORT_DRAIN_S: Final = 0.5
"""Where nothing more can come: the engine is gone, or the way to the gateways."""
_FAREWELL_S: Final = 10.0
"""How long a worker whose engine failed waits for a relay that hears why."""
_T = TypeVar("_T")


class Worker:
    """One lease.

    Args:
        job: from hpc_dispatch.
        settings: the operator's.
    """

    def __init__(self, job: PilotJob, settings: WorkerSettings) -> None:
        self._job = job
        self._settings = settings
        lease_id, key = from_hex(job.lease), WorkerKey()
        open_secret = open_secret_of(job.bootstrap_secret, lease_id=lease_id)

        def open_with(frame: Frame) -> bytes:
            return key.open(frame.body, lease_id=lease_id, header=frame.header, open_secret=open_secret)

        desk = Desk(
            lease_id,
            open_with,
            max_requests=job.max_requests,
            max_body=settings.max_body,
            max_window=settings.max_window,
        )
        self._service = Service(desk, settings, only_one=job.max_requests == 1)
        self._service.admit(_STARTING)
        meters.watch(self._service)
        self._herald = Herald(lease_id, job.bootstrap_secret, key, job.models, job.max_requests)
        self._service.introduce = lambda: [self._herald.announcement, self._status()]
        self._life: EngineLife | None = None
        self._health_port = 0
        self._draining = False
        self._failed = ""
        self._starting = tracing.Span(None)

    async def serve(self, stop: asyncio.Event) -> None:
        """Startup, serve, drain, stop.

        Args:
            stop: set by SIGTERM; set here when STOP comes. Both mean: drain, then end.

        Raises:
            ConfigError: the engine can't be started, or died too often; or no relay was there for too long. The last
                STATUS has said so.
        """

        def hear_stop(frame: Frame) -> None:
            self._herald.check_stop(frame)
            _log.info("told to stop by hpc_dispatch", extra={"lease": self._job.lease})
            stop.set()

        self._service.hear_stop = hear_stop
        self._starting = tracing.begin(
            "worker start", parent=trace_context.read(self._job.trace), attributes={gen_ai.LEASE: self._job.lease}
        )
        async with contextlib.AsyncExitStack() as stack:
            health = serve_health("127.0.0.1", self._job.health_port, self._ready)
            self._health_port = await stack.enter_async_context(health)
            folder = self._settings.node_folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # No total limit: an answer may take hours. The gateway's own limits and CANCEL end it.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            connector = aiohttp.TCPConnector(limit=0, socket_factory=engine_socket)
            session = aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=256 * 1024)
            self._service.session = await stack.enter_async_context(session)
            tasks = await stack.enter_async_context(_Tasks())
            self._service.uplink = uplink = self._connect()
            self._life = life = EngineLife(
                self._job.engine,
                folder,
                session,
                restarts=self._settings.engine_restarts,
                look_s=self._settings.status_interval_s,
                changed=self._engine_changed,
            )
            for work in (uplink.run(), self._service.watch(), self._heartbeat(), life.watch_load()):
                tasks.start(work)
            living, orphaned = tasks.own(life.run()), tasks.own(self._until_orphaned())
            failure = await self._until_over(stop, living, orphaned)
            life.let_end()
            self._starting.end(failure.code if failure else "stopped")  # has ended long ago, if the engine ever ran
            self._draining, self._failed = True, failure.message if failure else ""
            self._beat()
            await self._service.drain(_SHORT_DRAIN_S if failure else self._settings.drain_s)
            # Nobody else can tell what became of the engine, so a relay that hears it is waited for.
            await self._say_farewell(uplink, _FAREWELL_S if living.done() else 0.0)
        if failure is not None:
            raise failure

    async def _until_over(
        self, stop: asyncio.Event, living: asyncio.Task[NoReturn], orphaned: asyncio.Task[None]
    ) -> ConfigError | None:
        """Wait for whatever ends this worker first; a failure when it is one."""
        left_s = self._job.expires_unix_s - time.time() - self._settings.drain_s
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._service.spent)]
        try:
            await asyncio.wait([living, orphaned, *waits], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if living.done():
            try:
                living.result()
            except UpstreamUnavailable as error:
                return ConfigError(error.message, param="engine")
        if orphaned.done():
            limit_s = self._settings.orphan_s
            return ConfigError(f"no relay for {limit_s:g} s: nobody can reach this worker, it ends", param="relays")
        return None

    async def _until_orphaned(self) -> None:
        """Wait until no relay was there for too long: who started this worker is gone, or its way is cut for good."""
        limit_s, heard = self._settings.orphan_s, time.monotonic()
        while time.monotonic() - heard < limit_s:
            await asyncio.sleep(min(1.0, limit_s / 4))
            if self._service.uplink is not None and self._service.uplink.connected:
                heard = time.monotonic()

    async def _say_farewell(self, uplink: Uplink, wait_s: float) -> None:
        """Say the last STATUS, to a relay that is there or comes within `wait_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await uplink.wait_connected()
        self._beat()
        await asyncio.sleep(0)  # the uplink writes what the drain and this have queued

    def _engine_changed(self) -> None:
        if self._life is None:
            return
        ready = self._life.engine is not None
        self._service.engine = self._life.engine
        self._service.admit(None if ready else _STARTING)
        if not self._draining:
            self._beat()
        if ready:
            self._starting.end()
            announce_ready(self._settings.ready_file, health_port=self._health_port)
            _log.info("ready", extra={"lease": self._job.lease})

    def _connect(self) -> Uplink:
        job, settings = self._job, self._settings
        return Uplink(
            job.relays,
            hello(job.lease, job.ticket, _SOFTWARE),
            self._service,
            ca_file=job.ca_file,
            backoff=(settings.reconnect_first_s, settings.reconnect_most_s),
        )

    async def _heartbeat(self) -> None:
        announced = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.status_interval_s)
            if time.monotonic() - announced >= self._settings.announce_interval_s and self._service.uplink is not None:
                announced = time.monotonic()
                self._service.uplink.send([self._herald.announcement])
            self._beat()

    def _beat(self) -> None:
        if self._service.uplink is not None and self._service.uplink.connected:
            self._service.uplink.send([self._status()])

    def _status(self) -> bytes:
        life, service = self._life, self._service
        status = Status(
            running=service.desk.running,
            draining=self._draining,
            expires_in_s=round(self._job.expires_unix_s - time.time(), 1),
            engine_ready=service.engine is not None,
            note=life.note if life else "",
            failed=self._failed,
            waiting=life.load.waiting if life else 0,
            cache_use=life.load.cache_use if life else None,
            first_token_ms=service.first_tokens.median_ms,
            served=service.served,
        )
        return self._herald.status(status)

    def _ready(self) -> str | None:
        if self._draining:
            return "draining"
        if self._service.engine is None:
            return "the engine is starting"
        uplink = self._service.uplink
        return None if uplink is not None and uplink.connected else "no relay"


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a task of this worker died", exc_info=error)


class _Tasks:
    """Owns the background tasks: they end with the block."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what nobody waits for; its death is logged."""
        self.own(work).add_done_callback(_report)

    def own(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run what somebody waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
