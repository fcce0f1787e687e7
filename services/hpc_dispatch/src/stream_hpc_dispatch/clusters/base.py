"""What dispatch asks of a cluster: take a pilot job, tell where it stands and when it has ended, stop it.

A backend is one file that fulfils `Cluster`, a case in `clusters/__init__.py`, and its section in
`stream_core.cluster_config`. It decides nothing: when to start and stop is the plan's business, whether a worker lives
is told by the worker's own heartbeat. Dispatch itself tells a worker to stop, sealed, over the relay, before and after
it calls `stop`: a backend that can't reach a running job has only to wait.
"""

from dataclasses import dataclass
from enum import Enum
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
    reason: str = ""
    """The cluster's own words for it, for an operator: "cancelled by root", "walltime reached", "out of memory"."""


class Place(Enum):
    """Where a job stands on its cluster."""

    QUEUED = "queued"
    RUNNING = "running"
    UNKNOWN = "unknown"
    """The cluster does not tell, or can't be asked now."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job that has not ended, as its cluster sees it."""

    place: Place
    queue_position: int | None = None
    """From 1, among the jobs that wait; None where the cluster does not tell."""
    starts: float | None = None
    """When the batch system expects to start it, in unix seconds."""
    words: str = ""
    """Why it waits, as the batch system says it: "Resources", "QOSMaxJobsPerUserLimit"."""


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """Whether a cluster takes jobs now."""

    online: bool
    reason: str = ""
    """Why not, for an operator."""


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

    async def look(self, handle: JobHandle) -> JobView:
        """Tell where a job stands; asked every few seconds until its worker has spoken. Never raises."""
        ...

    async def health(self) -> ClusterHealth:
        """Tell whether the cluster takes jobs; asked every now and then. Never raises."""
        ...

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait until a job has ended and nothing of it is left running.

        It returns some time after the lease's end in any case: a cluster that never tells keeps nobody waiting.
        """
        ...

    async def stop(self, handle: JobHandle) -> None:
        """Ask a job to end, and see to it that it does; a job that has ended is no error."""
        ...

    async def close(self) -> None:
        """Free what the backend holds; jobs go on only where another run of this program will take them over."""
        ...
