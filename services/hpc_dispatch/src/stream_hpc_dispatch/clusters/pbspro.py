"""PBS Pro and OpenPBS, as `Scheduler`: Parsl's provider writes the job script and calls qsub, qstat tells the rest.

One `qstat` asks for all jobs. Ended jobs are told where the server keeps their history (`job_history_enable`), else
they are unknown to it, which is an answer too.
"""

import getpass
import json
import re
import time
from typing import Any, Final

from stream_core.cluster_config import ParslConfig
from stream_core.errors import ConfigError
from stream_hpc_dispatch.clusters.base import JobView, Place
from stream_hpc_dispatch.clusters.batch import (
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

_QUEUED: Final = {"Q", "H", "W", "T"}
_RUNNING: Final = {"R", "E", "S", "U", "B"}
_ENDED: Final = {"F", "X", "M"}
_UNKNOWN: Final = re.compile(r"unknown job id|job has finished", re.IGNORECASE)
_NO_HISTORY: Final = re.compile(r"history", re.IGNORECASE)
_SIGNALLED: Final = 128
"""From here on an exit status is a signal: 128 + n from a shell, 256 + n from PBS itself (PBS User's Guide)."""
_WORDS: Final = (
    ("walltime", "walltime reached"),
    ("mem", "out of memory"),
    ("node", "node failed"),
    ("delete", "cancelled"),
)


class PbsPro:
    """PBS Pro's commands on PATH.

    Args:
        config: the cluster's section.

    Raises:
        ConfigError: a field that can't be used.
    """

    def __init__(self, config: ParslConfig) -> None:
        check_options(config, "#PBS")
        for param in ("partition", "account"):
            check_safe(getattr(config, param), param)
        if config.qos:
            raise ConfigError("qos is Slurm's; for PBS Pro use a queue, or a line of scheduler_options", param="qos")
        self._config = config
        self._providers: dict[int, Any] = {}
        self._history = True

    def submit(self, request: JobRequest) -> str:
        """Submit a job; see `Scheduler`."""
        if request.nodes not in self._providers:
            self._providers[request.nodes] = self._provider(request.nodes)
        return submit_with(self._providers[request.nodes], request)

    def list_jobs(self, ids: list[str], *, by_name: bool) -> list[Sighting]:
        """List jobs; see `Scheduler`."""
        if by_name:
            ids = [*dict.fromkeys([*ids, *self._own()])]
        if not ids:
            self._ask("-B")
            return []
        told = self._ask(f"-f -F json {' '.join(ids)}")
        return read_jobs(told, now=time.time())

    def terminate(self, job_id: str) -> None:
        """Send SIGTERM to the job's session; see `Scheduler`."""
        _command(f"qsig -s SIGTERM {job_id}")

    def cancel(self, job_id: str) -> None:
        """End a job; see `Scheduler`."""
        _command(f"qdel {job_id}")

    def who_cancelled(self, job_id: str) -> str:
        """Say nothing: the job's comment has said it, where it is known; see `Scheduler`."""
        del job_id
        return ""

    def _own(self) -> list[str]:
        """List the ids of this user's jobs that have not ended."""
        return _command(f"qselect -u {check_safe(getpass.getuser(), 'user')}").split()

    def _ask(self, arguments: str) -> str:
        """Call qstat; what it printed, which leaves out jobs that it does not know."""
        history = "-x " if self._history and "-B" not in arguments else ""
        told = run_command(f"qstat {history}{arguments}")
        if told.code and history and _NO_HISTORY.search(told.errors):
            self._history = False
            return self._ask(arguments)
        unknown = (
            all(_UNKNOWN.search(line) for line in told.errors.splitlines() if line.strip()) and told.errors.strip()
        )
        if told.code and not unknown:
            raise Away(f"qstat: {words_of(told.errors) or f'exit code {told.code}'}")
        return told.text

    def _provider(self, nodes: int) -> Any:
        from parsl.launchers import SimpleLauncher  # noqa: PLC0415  (an extra)
        from parsl.providers import PBSProProvider  # noqa: PLC0415

        class Provider(OwnCommands, PBSProProvider):
            pass

        config = self._config
        select = [f"ngpus={config.gpus_per_node}"] if config.gpus_per_node else []
        select += [f"mem={config.memory_gb}gb"] if config.memory_gb else []
        options = ["#PBS -r n", "#PBS -W umask=077", *config.scheduler_options]
        return Provider(  # type: ignore[no-untyped-call]  # (Parsl has no types here)
            queue=config.partition or None,
            account=config.account or None,
            nodes_per_block=nodes,
            cpus_per_node=config.cores_per_node,
            select_options=":".join(select),
            scheduler_options="\n".join(options),
            worker_init="\n".join(config.worker_init),
            launcher=SimpleLauncher(),
        )


def read_jobs(text: str, *, now: float) -> list[Sighting]:
    """Read qstat's JSON.

    Args:
        text: of it; empty when it knows none of the jobs.
        now: unix seconds; an expected start in the past is none.

    Raises:
        Away: it is not JSON, as some releases write it for some jobs.
    """
    try:
        told = json.loads(text or "{}", strict=False).get("Jobs", {})
        return [Sighting(job_id, job.get("Job_Name", ""), _state(job, now)) for job_id, job in told.items()]
    except (ValueError, AttributeError) as error:
        raise Away(f"qstat: its answer can't be read: {error}") from error


def _state(job: dict[str, Any], now: float) -> JobView | JobEnd:
    state, comment = job.get("job_state", ""), str(job.get("comment", ""))
    if state in _ENDED:
        return JobEnd(_exit_code(job.get("Exit_status")), _reason(comment))
    if state in _QUEUED:
        return JobView(Place.QUEUED, None, _start(job.get("estimated"), now), comment.removeprefix("Not Running: "))
    return JobView(Place.RUNNING if state in _RUNNING else Place.UNKNOWN)


def _exit_code(status: Any) -> int | None:
    """Read Exit_status: below 0 the job never ran, or PBS ended it; no exit code then."""
    if not isinstance(status, int) or status < 0:
        return None
    return status if status <= _SIGNALLED else -(status % _SIGNALLED)


def _reason(comment: str) -> str:
    """Read a comment such as "Job run at .. on (node1:ncpus=1) and exceeded resource walltime"."""
    lowered = comment.lower()
    if "exceeded" in lowered or "killed" in lowered or "deleted" in lowered or "failed" in lowered:
        said = lowered.rpartition(")")[2]
        return next((reason for word, reason in _WORDS if word in said), "")
    return ""


def _start(estimated: Any, now: float) -> float | None:
    """Read {"start_time": "Thu Nov 26 18:00:00 2026"}, local time."""
    try:
        starts = time.mktime(time.strptime(estimated["start_time"], "%a %b %d %H:%M:%S %Y"))
    except (KeyError, TypeError, ValueError):
        return None
    return starts if starts >= now else None


def _command(command: str) -> str:
    """Run one; a job that it does not know is no error."""
    told = run_command(command)
    if told.code and not _UNKNOWN.search(told.errors):
        raise Away(f"{command.split(maxsplit=1)[0]}: {words_of(told.errors) or f'exit code {told.code}'}")
    return told.text
