"""Jobs of the backend `globus`: what is known of a task, its handle, its end. No I/O."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from stream_hpc_dispatch.clusters import globus_words
from stream_hpc_dispatch.clusters.base import Ended, JobHandle

_GROUPS: Final = uuid.UUID("6f5ad8f5-5d2b-4a57-9a2e-3f1a4a7b1c0d")
"""Namespace of the task groups' ids."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task, as the service sees it."""

    status: str
    """"received", "waiting-for-ep", "waiting-for-nodes", "running", "success", "failed"."""
    result: Any = None
    """What the function returned."""
    exception: str = ""
    """Why it failed, or why there is no result."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in {"success", "failed"}


@dataclass(slots=True)
class Job:
    """One task."""

    lease: str
    expires: float
    since: float
    """When it was handed over, or taken over."""
    task: str = ""
    """Empty as long as it is not known whether there is one."""
    doubt: str = ""
    """Why not."""
    state: TaskState = field(default_factory=lambda: TaskState(""))
    ended: Ended | None = None

    @property
    def group(self) -> uuid.UUID:
        """Of its task."""
        return group_of(self.lease)

    @property
    def handle(self) -> JobHandle:
        """Its name, as far as it is known by now."""
        return JobHandle(f"{self.lease} {self.task or '-'} {self.expires}")


def group_of(lease: str) -> uuid.UUID:
    """Name the task group of a lease.

    Args:
        lease: hex.
    """
    return uuid.uuid5(_GROUPS, lease)


def read_handle(lease: str, handle: JobHandle | None, since: float) -> Job | None:
    """Read what a handle says; None when it is none of ours.

    Args:
        lease: hex, of the job that it must name.
        handle: as it was stored.
        since: unix seconds, now.
    """
    parts = (handle or "").split()
    try:
        of, task, expires = parts
        return Job(lease, float(expires), since, "" if task == "-" else str(uuid.UUID(task))) if of == lease else None
    except ValueError:
        return None


def end_of(state: TaskState) -> Ended | None:
    """Read a task's end; None when it has not come.

    Args:
        state: its result was written by a cluster, which may write anything.
    """
    if not state.ended:
        return None
    if state.status == "failed" or state.exception:
        return Ended(None, "", globus_words.task_failure(state.exception))
    result = state.result
    if not isinstance(result, dict):
        return Ended(None, "", "its result is not what was asked for")
    exit_code, tail, said = result.get("exit_code"), result.get("tail"), result.get("error")
    host = globus_words.shorten(str(result.get("host", "")))
    reason = f"{globus_words.shorten(str(said))} (on {host})" if said else ""
    return Ended(exit_code if isinstance(exit_code, int) else None, tail if isinstance(tail, str) else "", reason)
