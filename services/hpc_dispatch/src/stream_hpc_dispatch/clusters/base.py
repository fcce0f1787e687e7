"""What dispatch asks of a cluster: take a pilot job, tell when it has ended, stop it.

A backend is one file that fulfils `Cluster`, and one line in `clusters/__init__.py`. It decides nothing: when to
start and stop is the plan's business, whether a worker lives is told by the worker's own heartbeat.
"""

from dataclasses import dataclass
from typing import ClassVar, NewType, Protocol

from stream_core.errors import RemoteError
from stream_core.wire.job import PilotJob

JobHandle = NewType("JobHandle", str)
"""Names a job within its backend; plain text, so that it can be stored."""


class SubmitFailed(RemoteError):
    """The cluster did not take the job; the message says why, in words for an operator."""

    code = "submit_failed"


@dataclass(frozen=True, slots=True)
class Ended:
    """A job's end."""

    exit_code: int | None
    """Negative: the signal that killed it; None where the cluster does not tell."""
    tail: str
    """The last lines of the worker's log, without secrets."""


class Cluster(Protocol):
    """One cluster. All methods are safe to be cancelled."""

    backend: ClassVar[str]
    """Its name in stream.yaml."""

    async def submit(self, job: PilotJob) -> JobHandle:
        """Hand a job over; returns when the cluster has taken it, which may be long before it runs.

        The job carries secrets: it travels by a channel that no other user of the cluster can read.

        Raises:
            SubmitFailed: it was not taken, and nothing of it is left behind.
        """
        ...

    async def recover(self, lease: str, handle: JobHandle | None) -> JobHandle | None:
        """Find a job that an earlier run of this program handed over; `observe` and `stop` then know it.

        Args:
            lease: hex, as the job names it.
            handle: as it was stored; None when that run ended before it could be.

        Returns:
            Its handle; None when the job is gone. Never one of a job that only looks like it.
        """
        ...

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait until a job has ended and nothing of it is left running."""
        ...

    async def stop(self, handle: JobHandle) -> None:
        """Ask a job to end, and see to it that it does; a job that has ended is no error."""
        ...

    async def close(self) -> None:
        """Free what the backend holds; jobs go on only where another run of this program will take them over."""
        ...
