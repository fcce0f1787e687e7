"""What backend `parsl` asks of a batch system; `slurm.py` and `pbspro.py` answer it.

All of it blocks, as the batch systems' commands do: it is called in threads. A batch system that can't be asked raises
`Away`, which says nothing about its jobs; a listing that came is the truth about all of them.
"""

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from stream_core.cluster_config import ParslConfig
from stream_core.errors import ConfigError, RemoteError
from stream_hpc_dispatch.clusters.base import JobView
from stream_hpc_dispatch.clusters.local import worker_environment

VAGUE: Final = "it failed, and the batch system does not say why"
"""The reason of a `JobEnd` that anything else says better."""
COMMAND_S: Final = 30.0
"""Seconds that a command of the batch system may take; Slurm's own ones give up after about 10."""
_UNANSWERED: Final = re.compile(r"timed? ?out", re.IGNORECASE)
"""A submission that ends with these words may have been taken."""
_MAX_WORDS: Final = 300
_SHELL_SAFE: Final = re.compile(r"[A-Za-z0-9_./@%+=:,-]*")
"""Parsl writes paths and names into shell lines as they are."""


class Away(RemoteError):
    """The batch system can't be asked now; the message holds its own words."""

    code = "batch_system_away"


class Rejected(RemoteError):
    """The batch system refused a job, and has none of it; the message holds its own words."""

    code = "job_rejected"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What one job needs."""

    name: str
    folder: Path
    """Where the batch system's own files of this job go; private."""
    script: str
    """Shell lines."""
    walltime_s: float
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class JobEnd:
    """That a job is over, as far as the batch system tells."""

    exit_code: int | None = None
    """Negative: a signal's number."""
    reason: str = ""
    """For an operator; empty where the exit code says it all."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One job in a listing."""

    id: str
    name: str
    state: JobView | JobEnd


class Scheduler(Protocol):
    """One batch system."""

    def submit(self, request: JobRequest) -> str:
        """Submit a job; its id. Calls must not overlap.

        Raises:
            Rejected: it was not taken.
            Away: it may have been taken.
        """
        ...

    def list_jobs(self, ids: list[str], *, by_name: bool) -> list[Sighting]:
        """List this user's jobs, with those that have ended lately; one that is not there is gone.

        Args:
            ids: of the jobs that are asked for; others may be listed too.
            by_name: list jobs of unknown ids too.

        Raises:
            Away: nobody knows.
        """
        ...

    def terminate(self, job_id: str) -> None:
        """Send SIGTERM to the job's script, and only to it where the batch system can do so.

        Raises:
            Away: it may not have been sent.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Take a job out of the queue, or end it; one that is over is no error.

        Raises:
            Away: it may go on.
        """
        ...

    def who_cancelled(self, job_id: str) -> str:
        """Name the user who cancelled a job; empty where the batch system does not tell."""
        ...


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left."""

    code: int
    text: str
    errors: str


class OwnCommands:
    """Mixed into a Parsl provider: its commands run as all others do here, in the job's folder."""

    script_dir: str | None

    def execute_wait(self, cmd: str, timeout: float | None = None) -> tuple[int, str, str]:
        """Run a shell line; Parsl calls this."""
        told = run_command(cmd, timeout or COMMAND_S, folder=self.script_dir)
        return told.code, told.text, told.errors


def run_command(command: str, timeout_s: float = COMMAND_S, *, folder: str | None = None, **variables: str) -> Output:
    """Run a shell line of the batch system, without this program's own secrets in its environment.

    Args:
        command: as a shell reads it.
        timeout_s: seconds; after that all it has started is killed.
        folder: where it runs; None: where this program does.
        variables: added to the environment.

    Raises:
        Away: no answer in time, or no shell.
    """
    try:
        process = subprocess.Popen(  # noqa: S603  (Parsl's own commands, whose parts are checked by `check_safe`)
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=worker_environment(os.environ, None) | variables,
            start_new_session=True,
        )
    except OSError as error:
        raise Away(f"/bin/sh: {error.strerror}") from error
    try:
        text, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Away(f"{command.split(maxsplit=1)[0]}: no answer within {timeout_s:g} s") from None
    return Output(process.returncode, text.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def words_of(text: str) -> str:
    """Join what a command said on its error output, without its lines' prefixes, on one line of bounded length."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in text.splitlines()]
    joined = "; ".join(dict.fromkeys(line for line in lines if line))
    return joined if len(joined) <= _MAX_WORDS else f"{joined[:_MAX_WORDS]}..."


def is_safe(text: str) -> bool:
    """Whether a text may stand in a shell line as it is."""
    return _SHELL_SAFE.fullmatch(text) is not None


def check_safe(text: str, param: str) -> str:
    """Return a text that may stand in a shell line as it is.

    Raises:
        ConfigError: it may not; the message names the field.
    """
    if not is_safe(text):
        raise ConfigError(f"{text!r} may hold letters, digits and _ . / @ % + = : , - only", param=param)
    return text


def check_options(config: ParslConfig, directive: str) -> None:
    """See that further lines of the job script are the batch system's own.

    Raises:
        ConfigError: one is not: the shell would run it before the others are read.
    """
    for number, line in enumerate(config.scheduler_options):
        if not line.startswith(f"{directive} ") or "\n" in line:
            raise ConfigError(
                f"{line!r} must be one line that starts with {directive!r}", param=f"scheduler_options.{number}"
            )


def submit_with(provider: Any, request: JobRequest) -> str:
    """Let a Parsl provider write the job script and submit it.

    Raises:
        Rejected: it was not taken.
        Away: it may have been taken.
    """
    from parsl.providers.errors import ExecutionProviderException, SubmitException  # noqa: PLC0415  (an extra)

    minutes, seconds = divmod(int(-(-request.walltime_s // 1)), 60)
    provider.walltime = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    provider.script_dir = str(request.folder)
    try:
        job_id = provider.submit(request.script, 1, request.name)
    except SubmitException as error:
        words = words_of(error.stderr or "") or words_of(error.stdout or "") or error.message
        if _UNANSWERED.search(words):
            raise Away(words) from error
        raise Rejected(words) from error
    except ExecutionProviderException as error:
        raise Rejected(str(error)) from error
    if not job_id or not is_safe(str(job_id)):
        raise Rejected(f"the batch system gave no job id: {job_id!r}")
    provider.resources.clear()  # ours to keep: Parsl takes a job that it can't find for completed
    return str(job_id)
