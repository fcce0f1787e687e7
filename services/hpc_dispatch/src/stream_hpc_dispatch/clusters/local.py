"""Backend `local`: a process of this machine stands for a cluster's job.

The job goes to the worker's standard input, never into its arguments or environment, which other users can read.
Each worker leads its own session: when it has ended, however it ended, its whole process group is killed, so that no
engine stays behind.

Where workers are tied to this program they die with it even on `kill -9`: `STREAM_DIE_WITH_PARENT` asks a worker to
request that from the kernel (PR_SET_PDEATHSIG); set from here it would need code between fork and exec. Else they go
on, and the next run finds them by process id and start time. `<lease>.pid` beside the log says both; it is written
before the worker gets its job, so a worker that is not in it has nothing to do and ends.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from stream_core.processes import identity
from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.clusters.base import ClusterHealth, Ended, JobHandle, JobView, Place, SubmitFailed

_log = logging.getLogger(__name__)

_TAIL_BYTES: Final = 8 * 1024
_TAIL_LINES: Final = 20
_KEPT_LOGS: Final = 200
"""Log files of ended workers, the newest ones."""
_POLL_S: Final = 0.1
"""Between two looks at a worker that is not our child."""
_NOT_INHERITED: Final = re.compile(
    r"STREAM_(?!WORKER_|ENGINE_|MODELS_DIR$|HOME$)|(?!STREAM_ENGINE_).*(API_KEY|PASSWORD|SECRET)$"
)
"""The services' own settings and the institution's keys: a job on a cluster would not see them either."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One worker."""

    pid: int
    identity: str
    log: Path
    child: asyncio.subprocess.Process | None = None
    """None for one that an earlier run started."""

    @property
    def pid_file(self) -> Path:
        return self.log.with_suffix(".pid")

    async def wait(self) -> int | None:
        """Wait until it has ended; its exit code, where that is ours to know."""
        if self.child is not None:
            return await self.child.wait()
        while identity(self.pid) == self.identity:  # noqa: ASYNC110  (no portable event tells a stranger's end)
            await asyncio.sleep(_POLL_S)
        return None

    def terminate(self) -> None:
        """Send SIGTERM to the worker alone."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.terminate()
        elif identity(self.pid) == self.identity:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """Kill it and what it started, unless the id has become somebody else's."""
        # The group keeps the leader's id as its own as long as one member lives, so a later leader has no such group.
        if self.child is None and identity(self.pid) not in {"", self.identity}:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class LocalCluster:
    """Runs workers as processes of this machine.

    Args:
        command: starts a worker, which reads its job from standard input.
        folder: where the workers' logs go.
        grace_s: seconds between SIGTERM and SIGKILL.
        tied: workers die with this program.
    """

    backend: ClassVar[str] = "local"

    def __init__(self, command: list[str], folder: Path, grace_s: float, *, tied: bool = True) -> None:
        self._command = command
        self._folder = folder
        self._grace_s = grace_s
        self._tied = tied
        self._running: dict[JobHandle, _Job] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def submit(self, job: PilotJob) -> JobHandle:
        """Start a worker; see `Cluster`."""
        log = self._folder / f"{job.lease}.log"
        self._forget_old_logs()
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise SubmitFailed(f"{log}: {error.strerror}") from error
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                env=worker_environment(os.environ, os.getpid() if self._tied else None),
                start_new_session=True,
            )
        except OSError as error:
            raise SubmitFailed(f"{self._command[0]}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        started = _Job(process.pid, identity(process.pid), log, process)
        handle = _handle(job.lease, started.pid, started.identity)
        try:
            _write_pid(started)
        except OSError as error:
            started.kill_group()
            await process.wait()
            raise SubmitFailed(f"{started.pid_file}: {error.strerror}") from error
        self._running[handle] = started
        _log.info("worker process started", extra={"lease": job.lease, "worker_pid": process.pid, "log": str(log)})
        if process.stdin is not None:
            # A worker that ended before it read its job is told by `observe`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(msgspec.json.encode(job))
                await process.stdin.drain()
            process.stdin.close()
        return handle

    async def recover(self, lease: str, handle: JobHandle | None) -> JobHandle | None:
        """Find a worker by process id and start time; see `Cluster`."""
        log = self._folder / f"{lease}.log"
        found = _parse(handle.partition(" ")[2]) if handle else _parse(_read(log.with_suffix(".pid")))
        if found is None:
            return None
        pid, told = found
        if identity(pid) != told:
            log.with_suffix(".pid").unlink(missing_ok=True)
            return None
        known = _handle(lease, pid, told)
        self._running[known] = _Job(pid, told, log)
        return known

    async def look(self, handle: JobHandle) -> JobView:
        """Tell that it runs: nobody queues here; see `Cluster`."""
        return JobView(Place.RUNNING if handle in self._running else Place.UNKNOWN)

    async def health(self) -> ClusterHealth:
        """Tell that this machine is there; see `Cluster`."""
        return ClusterHealth(online=True)

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait for a worker's end; see `Cluster`."""
        job = self._running[handle]
        exit_code = await job.wait()
        job.kill_group()
        job.pid_file.unlink(missing_ok=True)
        self._running.pop(handle, None)
        return Ended(exit_code, read_tail(job.log))

    async def stop(self, handle: JobHandle) -> None:
        """Send SIGTERM, so that the worker finishes what it has; SIGKILL to all of its group after the grace."""
        if handle not in self._running:
            return
        job = self._running[handle]
        job.terminate()
        try:
            async with asyncio.timeout(self._grace_s):
                await job.wait()
        except TimeoutError:
            job.kill_group()

    async def close(self) -> None:
        """Kill what still runs, where workers are tied to this program."""
        if self._tied:
            for job in self._running.values():
                job.kill_group()

    def _forget_old_logs(self) -> None:
        running = {job.log for job in self._running.values()}
        ended = [log for log in self._folder.glob("*.log") if log not in running]
        ended.sort(key=lambda log: log.stat().st_mtime, reverse=True)
        for log in ended[_KEPT_LOGS:]:
            log.unlink(missing_ok=True)


def worker_environment(own: Mapping[str, str], pid: int | None) -> dict[str, str]:
    """Choose what a worker inherits.

    Args:
        own: this program's environment.
        pid: this program's, when the worker is to die with it; the worker compares it with its parent's to notice a
            death before it asked to be told.
    """
    inherited = {name: value for name, value in own.items() if not _NOT_INHERITED.match(name)}
    return inherited | ({} if pid is None else {"STREAM_DIE_WITH_PARENT": "1", "STREAM_PARENT_PID": str(pid)})


def read_tail(log: Path) -> str:
    """Read the last lines of a log; empty when there are none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _handle(lease: str, pid: int, told: str) -> JobHandle:
    return JobHandle(f"{lease} {pid} {told}")


def _write_pid(job: _Job) -> None:
    descriptor = os.open(job.pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{job.pid} {job.identity}\n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _parse(text: str) -> tuple[int, str] | None:
    """Read "<process id> <identity>"; None when it names no process."""
    pid, _, told = text.strip().partition(" ")
    return (int(pid), told) if pid.isdecimal() and int(pid) > 1 and told else None
