"""The private folder of one lease on the file system that login node and nodes share.

job.json    the pilot job, with its secret: written here, read and deleted by the worker as it starts
expires     the lease's end, unix seconds
log         what the worker wrote
exit        the worker's exit code, once it has ended
stream-*    the job script (Parsl's), and beside it what the batch system wrote: .stdout, .stderr
"""

import contextlib
import logging
import os
import shlex
import shutil
from pathlib import Path
from typing import Final

import msgspec

from stream_core.files import write_private
from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.clusters.local import read_tail

_log = logging.getLogger(__name__)
_SIGNALLED: Final = 128
"""A shell says 128 + n of a program that signal n has killed."""
_SCRIPT: Final = """\
umask 077
cd {folder}
told=
trap 'told=1; test -z "$worker" || kill -TERM "$worker"' TERM
{command} --job {folder}/job.json >>{folder}/log 2>&1 &
worker=$!
# A signal ends `wait` before the worker has ended: then wait again.
while :; do
  told=
  wait "$worker"
  code=$?
  test -n "$told" || break
done
echo "$code" >{folder}/exit
exit "$code"
"""


class JobFolder:
    """Files of one lease.

    Args:
        path: of the folder; its name is the lease.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def job_name(self) -> str:
        """How the batch system is told to name the job; Parsl puts the time behind it."""
        return f"stream-{self._path.name}"

    def create(self, job: PilotJob) -> None:
        """Write the job down for its worker.

        Raises:
            OSError: the file system does not take it.
        """
        self._path.mkdir(mode=0o700)
        write_private(self._path / "expires", f"{job.expires_unix_s:.3f}".encode())
        write_private(self._path / "job.json", msgspec.json.encode(job))

    def script(self, command: list[str]) -> str:
        """Write the lines that run a worker; none of them holds a secret."""
        return _SCRIPT.format(folder=self._path, command=shlex.join(command))

    @property
    def expires(self) -> float | None:
        """The lease's end, unix seconds; None when it is not known."""
        return _number(self._path / "expires")

    @property
    def exit_code(self) -> int | None:
        """The worker's; negative: the signal that killed it; None when the script did not come so far."""
        code = _number(self._path / "exit")
        if code is None:
            return None
        return int(code) if code <= _SIGNALLED else _SIGNALLED - int(code)

    @property
    def log_tail(self) -> str:
        """The last lines of the worker's log; without one, of what the batch system wrote."""
        return read_tail(self._path / "log") or self.complaints

    @property
    def complaints(self) -> str:
        """The last lines of what the batch system, or the shell, wrote on the job's error output."""
        return "\n".join(filter(None, (read_tail(path) for path in self._path.glob("stream-*.stderr"))))

    @property
    def open(self) -> bool:
        """Whether it may still belong to a job: `close` was not called."""
        return (self._path / "expires").exists()

    def close(self) -> None:
        """Remove what only a job that has not ended needs; logs stay."""
        try:
            for name in ("job.json", "expires", "exit"):
                (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s can't be cleared: %s", self._path, error.strerror)

    def withdraw(self) -> None:
        """Remove the job: a script that starts without it has nothing to do."""
        (self._path / "job.json").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self._path, ignore_errors=True)


def prepare_root(root: Path) -> list[JobFolder]:
    """Make the folder of all leases.

    Args:
        root: private; made if it is not there.

    Returns:
        The folders that an earlier run has left open.

    Raises:
        OSError: it can't be made or read.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    return [folder for path in root.iterdir() if path.is_dir() and (folder := JobFolder(path)).open]


def forget_closed(root: Path, keep: int) -> None:
    """Remove the folders of ended jobs but the newest ones, which stay for their logs.

    Raises:
        OSError: the folder of all leases can't be read.
    """
    closed = [path for path in root.iterdir() if path.is_dir() and not JobFolder(path).open]
    for path in sorted(closed, key=os.path.getmtime, reverse=True)[keep:]:
        JobFolder(path).remove()


def _number(path: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return float(path.read_text(encoding="utf-8"))
    return None
