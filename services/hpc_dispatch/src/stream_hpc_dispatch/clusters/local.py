"""Backend `local`: a process of this machine stands for a cluster's job.

The job goes to the worker's standard input, never into its arguments or environment, which other users can read.
Each worker leads its own session: when it has ended, however it ended, its whole process group is killed, so that no
engine stays behind. A worker dies with this program even on `kill -9`: `STREAM_DIE_WITH_PARENT` asks it to request
that from the kernel (PR_SET_PDEATHSIG); set from here it would need code between fork and exec.
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.clusters.base import Ended, JobHandle, SubmitFailed

_log = logging.getLogger(__name__)

_TAIL_BYTES: Final = 8 * 1024
_TAIL_LINES: Final = 20
_KEPT_LOGS: Final = 200
"""Log files of ended workers, the newest ones."""
_NOT_INHERITED: Final = re.compile(
    r"STREAM_(?!WORKER_|ENGINE_|MODELS_DIR$|HOME$)|(?!STREAM_ENGINE_).*(API_KEY|PASSWORD|SECRET)$"
)
"""The services' own settings and the institution's keys: a job on a cluster would not see them either."""


class LocalCluster:
    """Runs workers as children of this program.

    Args:
        command: starts a worker, which reads its job from standard input.
        folder: where the workers' logs go.
        grace_s: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, command: list[str], folder: Path, grace_s: float) -> None:
        self._command = command
        self._folder = folder
        self._grace_s = grace_s
        self._running: dict[JobHandle, tuple[asyncio.subprocess.Process, Path]] = {}
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
                env=worker_environment(os.environ, os.getpid()),
                start_new_session=True,
            )
        except OSError as error:
            raise SubmitFailed(f"{self._command[0]}: {error.strerror}") from error
        finally:
            os.close(descriptor)
        handle = JobHandle(job.lease)
        _log.info("worker process started", extra={"lease": job.lease, "worker_pid": process.pid, "log": str(log)})
        self._running[handle] = (process, log)
        if process.stdin is not None:
            # A worker that ended before it read its job is told by `observe`.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(msgspec.json.encode(job))
                await process.stdin.drain()
            process.stdin.close()
        return handle

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait for a worker's end; see `Cluster`."""
        process, log = self._running[handle]
        exit_code = await process.wait()
        _kill_group(process.pid)
        self._running.pop(handle, None)
        return Ended(exit_code, read_tail(log))

    async def stop(self, handle: JobHandle) -> None:
        """Send SIGTERM, so that the worker finishes what it has; SIGKILL to all of its group after the grace."""
        if handle not in self._running:
            return
        process, _ = self._running[handle]
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._grace_s):
                await process.wait()
        except TimeoutError:
            _kill_group(process.pid)

    async def close(self) -> None:
        """Kill what still runs."""
        for process, _ in self._running.values():
            _kill_group(process.pid)

    def _forget_old_logs(self) -> None:
        ended = [log for log in self._folder.glob("*.log") if log.stem not in self._running]
        ended.sort(key=lambda log: log.stat().st_mtime, reverse=True)
        for log in ended[_KEPT_LOGS:]:
            log.unlink(missing_ok=True)


def worker_environment(own: Mapping[str, str], pid: int) -> dict[str, str]:
    """Choose what a worker inherits.

    Args:
        own: this program's environment.
        pid: this program's; the worker compares it with its parent's to notice a death before it asked to be told.
    """
    inherited = {name: value for name, value in own.items() if not _NOT_INHERITED.match(name)}
    return inherited | {"STREAM_DIE_WITH_PARENT": "1", "STREAM_PARENT_PID": str(pid)}


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


def _kill_group(leader: int) -> None:
    # The group keeps the leader's id as its own as long as one member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
