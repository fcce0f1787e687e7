"""`stream-worker`, `python -m stream_worker`: reads its job, serves until the lease ends or SIGTERM.

The job comes on standard input, or in a private file, `--job FILE`, which is deleted at once: it holds a secret.
"""

import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from stream_core.envelope.keys import WorkerKey, open_secret_of
from stream_core.errors import ConfigError, UpstreamUnavailable
from stream_core.health import serve_health
from stream_core.ids import from_hex
from stream_core.lifecycle import announce_ready, run
from stream_core.telemetry import configure_logs
from stream_core.wire.frames import Frame
from stream_core.wire.job import PilotJob
from stream_core.wire.payloads import Failure, Status
from stream_worker import VERSION
from stream_worker.desk import Desk
from stream_worker.engine import Engine, engine_socket, run_engine
from stream_worker.serve import Herald, Service
from stream_worker.settings import WorkerSettings
from stream_worker.uplink import Uplink, hello

_log = logging.getLogger("stream_worker")
_SOFTWARE = f"stream-worker/{VERSION}"
_STARTING = Failure(code="worker_not_ready", message="the engine is starting", retryable=True, status=503)


def take_job_file(path: Path) -> bytes:
    """Read the file that holds the job, and delete it.

    Raises:
        ConfigError: it can't be read, or can't be deleted: then its secret would stay.
    """
    try:
        data = path.read_bytes()
        path.unlink()
    except OSError as error:
        raise ConfigError(f"the job file {path}: {error.strerror}", param="job") from error
    return data


def read_job(data: bytes, source: str = "on standard input") -> PilotJob:
    """Read the job.

    Args:
        data: JSON.
        source: where it came from, for the message.

    Raises:
        ConfigError: not a job; the message names the field and shows nothing of the content.
    """
    try:
        job = msgspec.json.decode(data, type=PilotJob)
        from_hex(job.lease)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"the job {source}: {error}", param="job") from error
    return job


class Worker:
    """One lease, from job to end."""

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
        desk.refuse_new = _STARTING
        self._service = Service(desk, settings)
        self._herald = Herald(lease_id, job.bootstrap_secret, key, job.models, job.max_requests)
        self._service.introduce = lambda: [self._herald.announcement, self._status()]
        self._draining = False
        self._orphaned = False

    async def serve(self, stop: asyncio.Event) -> None:
        """Startup, serve, drain, stop.

        Raises:
            ConfigError: the engine can't be started, or ended by itself; or no relay was there for too long.
        """

        def hear_stop(frame: Frame) -> None:
            self._herald.check_stop(frame)
            _log.info("told to stop by hpc_dispatch", extra={"lease": self._job.lease})
            stop.set()

        self._service.hear_stop = hear_stop
        async with contextlib.AsyncExitStack() as stack:
            port = await stack.enter_async_context(serve_health("127.0.0.1", self._job.health_port, self._ready))
            folder = self._settings.node_folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            engine = await stack.enter_async_context(run_engine(self._job.engine, folder))
            # No total limit: an answer may take hours. The gateway's own limits and CANCEL end it.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            connector = aiohttp.TCPConnector(limit=0, socket_factory=engine_socket)
            session = aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=256 * 1024)
            self._service.session = await stack.enter_async_context(session)
            tasks = await stack.enter_async_context(_Tasks())
            self._service.uplink = self._connect()
            tasks.start(self._service.uplink.run())
            tasks.start(self._service.watch())
            tasks.start(self._heartbeat())
            tasks.start(self._end_as_orphan(stop))
            if not await _second_is_first(stop.wait(), engine.wait_ready(session, self._job.engine)):
                self._raise_if_orphaned()
                return
            self._service.engine = engine
            self._service.desk.refuse_new = None
            self._beat()
            announce_ready(self._settings.ready_file, health_port=port)
            _log.info("ready", extra={"lease": self._job.lease})
            died = await self._until_stopped(stop, engine)
            self._draining = True
            self._beat()
            await self._service.drain(0.5 if died or self._orphaned else self._settings.drain_s)
            self._beat()
            await asyncio.sleep(0)  # the uplink writes what the drain has queued
            if died:
                raise ConfigError(engine.obituary(), param="engine")
            self._raise_if_orphaned()

    async def _until_stopped(self, stop: asyncio.Event, engine: Engine) -> bool:
        """Wait for SIGTERM, the lease's end less the drain, or the engine's death (then true)."""
        left = self._job.expires_unix_s - time.time() - self._settings.drain_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                if engine.process is None:
                    await stop.wait()
                else:
                    return not await _second_is_first(engine.process.wait(), stop.wait())
        return False

    async def _end_as_orphan(self, stop: asyncio.Event) -> None:
        """Stop when no relay was there for too long: who started this worker is gone, or its way is cut for good."""
        limit_s, heard = self._settings.orphan_s, time.monotonic()
        while time.monotonic() - heard < limit_s:
            await asyncio.sleep(min(1.0, limit_s / 4))
            if self._service.uplink is not None and self._service.uplink.connected:
                heard = time.monotonic()
        self._orphaned = True
        stop.set()

    def _raise_if_orphaned(self) -> None:
        if self._orphaned:
            limit_s = self._settings.orphan_s
            raise ConfigError(f"no relay for {limit_s:g} s: nobody can reach this worker, it ends", param="relays")

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
        status = Status(
            running=self._service.desk.running,
            draining=self._draining,
            expires_in_s=round(self._job.expires_unix_s - time.time(), 1),
            engine_ready=self._service.engine is not None,
        )
        return self._herald.status(status)

    def _ready(self) -> str | None:
        if self._draining:
            return "draining"
        if self._service.engine is None:
            return "the engine is starting"
        uplink = self._service.uplink
        return None if uplink is not None and uplink.connected else "no relay"


async def _second_is_first(one: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, Any]) -> bool:
    """Wait for whichever of two ends first; true when it is the second. Its exception is raised, the rest cancelled."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return tasks[0] not in done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a task of this worker died", exc_info=error)


class _Tasks:
    """Owns the background tasks: they end with the block."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(_report)
        self._tasks.append(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def main(stop: asyncio.Event) -> None:
    """Read settings and job, then serve."""
    settings = WorkerSettings.read()
    configure_logs("worker", settings.log_level)
    match sys.argv[1:]:
        case []:
            job = read_job(await asyncio.to_thread(sys.stdin.buffer.read))
        case ["--job", file]:
            job = read_job(await asyncio.to_thread(take_job_file, Path(file)), f"in {file}")
        case arguments:
            raise ConfigError(
                f"{' '.join(arguments)}: it takes `--job FILE`, or `--version`, or nothing", param="arguments"
            )
    try:
        await Worker(job, settings).serve(stop)
    except UpstreamUnavailable as error:
        raise ConfigError(error.message, param="engine") from error


def entry() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-worker {VERSION}\n")
        return
    run("stream-worker", main)


if __name__ == "__main__":
    entry()
