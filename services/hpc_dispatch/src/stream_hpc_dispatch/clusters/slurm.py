"""Slurm, as `Scheduler`: Parsl's provider writes the job script and calls sbatch, squeue tells the rest.

One `squeue` lists all jobs of this user, with those that ended within the controller's MinJobAge (300 s as installed).
No accounting database is needed; where there is one, it names the user who cancelled a job.
"""

import contextlib
import math
import pwd
import shlex
from dataclasses import replace
from typing import Any, Final

from stream_core.cluster_config import ParslConfig
from stream_hpc_dispatch.clusters.base import JobView, Place
from stream_hpc_dispatch.clusters.batch import (
    VAGUE,
    Away,
    JobEnd,
    JobRequest,
    OwnCommands,
    Sighting,
    check_options,
    check_safe,
    run_command,
    submit_with,
    words_of,
)

_MINUTE_S: Final = 60
_FIELDS: Final = ("%i", "%T", "%r", "%S", "%Q", "%P", "%j")
_QUEUED: Final = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_RUNNING: Final = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING"}
_ENDED: Final = {
    "BOOT_FAIL": "node failed: it did not boot",
    "CANCELLED": "cancelled",
    "COMPLETED": "",
    "DEADLINE": "deadline reached",
    "FAILED": VAGUE,
    "NODE_FAIL": "node failed",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted by another job",
    "REVOKED": "taken over by another cluster",
    "TIMEOUT": "walltime reached",
}
_NO_REASON: Final = {"None", "NonZeroExitCode", "TimeLimit", "(null)", ""}


class Slurm:
    """Slurm's commands on PATH.

    Args:
        config: the cluster's section.

    Raises:
        ConfigError: a field that can't be used.
    """

    def __init__(self, config: ParslConfig) -> None:
        check_options(config, "#SBATCH")
        for param in ("partition", "account", "qos"):
            check_safe(getattr(config, param), param)
        self._config = config
        self._providers: dict[int, Any] = {}

    def submit(self, request: JobRequest) -> str:
        """Submit a job; see `Scheduler`."""
        # Slurm counts in minutes, and Parsl cuts seconds off.
        minutes = max(1, math.ceil(request.walltime_s / _MINUTE_S))
        if request.nodes not in self._providers:
            self._providers[request.nodes] = self._provider(request.nodes)
        return submit_with(self._providers[request.nodes], replace(request, walltime_s=minutes * _MINUTE_S))

    def list_jobs(self, ids: list[str], *, by_name: bool) -> list[Sighting]:
        """List this user's jobs; see `Scheduler`."""
        del ids, by_name  # one command lists all of this user's
        told = _squeue("--me --states=all", "|".join(_FIELDS))
        try:
            places = sorted({line.split("|")[5] for line in told if line.split("|")[1] == "PENDING"})
            selection = f"--states=PENDING --partition={shlex.quote(','.join(places))}"
            return read_jobs(told, _squeue(selection, "%P|%Q") if places else [])
        except (ValueError, IndexError) as error:
            raise Away(f"squeue: its answer can't be read: {error}") from error

    def terminate(self, job_id: str) -> None:
        """Send SIGTERM to the batch script; see `Scheduler`."""
        _scancel(f"--signal=TERM --batch {job_id}")

    def cancel(self, job_id: str) -> None:
        """End a job; see `Scheduler`."""
        _scancel(job_id)

    def who_cancelled(self, job_id: str) -> str:
        """Ask the accounting database, where there is one; see `Scheduler`."""
        with contextlib.suppress(Away):
            told = run_command(f"sacct --noheader --parsable2 --allocations --format=State --jobs={job_id}")
            return read_canceller(told.text)
        return ""

    def _provider(self, nodes: int) -> Any:
        from parsl.launchers import SimpleLauncher  # noqa: PLC0415  (an extra)
        from parsl.providers import SlurmProvider  # noqa: PLC0415

        class Provider(OwnCommands, SlurmProvider):
            pass

        config = self._config
        # The job gets the user's own environment on the node, nothing of this program's. A job that a failed node has
        # interrupted is not run again: its worker's lease and secret are spent.
        options = ["#SBATCH --export=NONE", "#SBATCH --no-requeue", *config.scheduler_options]
        return Provider(
            partition=config.partition or None,
            account=config.account or None,
            qos=config.qos or None,
            nodes_per_block=nodes,
            cores_per_node=config.cores_per_node,
            mem_per_node=config.memory_gb,
            gpus_per_node=config.gpus_per_node or None,
            scheduler_options="\n".join(options),
            # Else `srun` in the job would hand an empty environment on.
            worker_init="\n".join(["unset SLURM_EXPORT_ENV", *config.worker_init]),
            exclusive=False,
            launcher=SimpleLauncher(),
        )


def read_jobs(told: list[str], queue: list[str]) -> list[Sighting]:
    """Read what squeue has told.

    Args:
        told: of each of our jobs, id|state|reason|start|priority|partition|name.
        queue: of each job that waits where one of ours does, partition|priority.

    Raises:
        ValueError: not like that.
    """
    waiting = [(partition, int(priority)) for partition, priority in (line.split("|") for line in queue)]
    found = []
    for line in told:
        job_id, state, reason, start, priority, partition, name = line.split("|", len(_FIELDS) - 1)
        words = "" if reason in _NO_REASON else reason
        if state in _ENDED:
            # The reason of a failure tells more: "JobLaunchFailure". That of others is why they once waited.
            end = JobEnd(reason=words if state == "FAILED" and words else _ENDED[state])
            found.append(Sighting(job_id, name, end))
        elif state in _QUEUED:
            ahead = sum(other == partition and their > int(priority) for other, their in waiting)
            starts = float(start) if start.isdecimal() else None
            view = JobView(Place.QUEUED, ahead + 1 if state == "PENDING" and waiting else None, starts, words)
            found.append(Sighting(job_id, name, view))
        else:
            place = Place.RUNNING if state in _RUNNING else Place.UNKNOWN
            found.append(Sighting(job_id, name, JobView(place, words=words)))
    return found


def read_canceller(text: str) -> str:
    """Read sacct's "CANCELLED by 1000"; empty when it says nothing like that."""
    state, _, uid = text.strip().partition(" by ")
    if state != "CANCELLED" or not uid.isdecimal():
        return ""
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return f"user {uid}"


def _squeue(selection: str, fields: str) -> list[str]:
    command = f"squeue --noheader {selection} --format='{fields}'"
    told = run_command(command, SLURM_TIME_FORMAT="%s")
    if told.code:
        raise Away(f"squeue: {words_of(told.errors) or f'exit code {told.code}'}")
    return told.text.splitlines()


def _scancel(arguments: str) -> None:
    told = run_command(f"scancel {arguments}")
    if told.code and "Invalid job id" not in told.errors and "already completing" not in told.errors:
        raise Away(f"scancel: {words_of(told.errors) or f'exit code {told.code}'}")
