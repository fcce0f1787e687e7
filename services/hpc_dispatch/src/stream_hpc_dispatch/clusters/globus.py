"""Backend `globus`: an institution's Globus Compute endpoint starts the workers, in jobs of its batch system.

A task runs `globus_pilot.start_pilot`, which starts the installed worker on a node and returns when that has ended.
Each lease has a task group of its own, whose id follows from the lease's: whoever knows the lease finds its task, also
when the answer to the submission was lost, or this program with it.

    the service says                        | then
    ----------------------------------------+---------------------------------------------------------------------------
    no, to a submission                     | SubmitFailed, in words
    nothing, or that it has a fault         | the job may be taken: its group is asked until the service tells
    the group has no task, for long enough  | it was not taken; the job has ended
    success                                 | the worker has ended; its exit code and the end of its log are the result
    failed                                  | the job has ended, in words
    anything else, or nothing at all        | the lease's end decides: after it and `_MARGIN_S`, the job has ended

Nothing here tells whether a worker lives: a job that is killed is noticed after the endpoint's heartbeats, one whose
endpoint was killed never. The worker's own heartbeat does. Globus Compute can't cancel a task either; dispatch tells a
worker to stop over the relay, and one that still waits in a queue, as soon as it runs.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, ClassVar, Final

import jsonschema
import msgspec

from stream_core.cluster_config import ClusterConfig, GlobusConfig
from stream_core.errors import ConfigError
from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.clusters import globus_pilot
from stream_hpc_dispatch.clusters.base import ClusterHealth, Ended, JobHandle, JobView, Place, SubmitFailed
from stream_hpc_dispatch.clusters.globus_jobs import Job, end_of, read_handle
from stream_hpc_dispatch.clusters.globus_service import ASK_S, ComputeService, ServiceFault, in_thread

_LARGEST: Final = 100_000
"""Bytes of a task's arguments; the service takes 10 MB, and nothing of that size belongs here."""
_TAIL_BYTES: Final = 8 * 1024
_POLL_S: Final = 3.0
"""Between two requests for the states of all tasks; the service allows 20 requests in 10 s."""
_HEALTH_S: Final = 3.0
"""How long an answer about the endpoint is believed."""
_MARGIN_S: Final = 120.0
"""After a lease's end until its job is taken for ended, whatever the service says."""
_DEFAULT_COMMAND: Final = ["stream-worker"]


class GlobusCluster:
    """Hands pilot jobs to one endpoint.

    Args:
        config: the cluster; its section `globus` is there.
        clock: gives unix seconds.

    Raises:
        ConfigError: see `ComputeService`; or `user_endpoint_config` does not fit its schema.
    """

    backend: ClassVar[str] = "globus"

    def __init__(self, config: ClusterConfig, *, clock: Callable[[], float] = time.time) -> None:
        where = f"clusters.{config.name}.globus"
        if config.globus is None:
            raise ConfigError("section 'globus' is needed", param=where)
        check_user_config(config.globus, where)
        self._service = ComputeService(config.globus, where)
        self._timeout_s = config.globus.submit_timeout_s
        self._function = str(config.globus.function_id or "")
        self._command = config.worker_command or _DEFAULT_COMMAND
        self._longest_s = max((pool.walltime_s for pool in config.pools), default=0.0)
        self._clock = clock
        self._jobs: dict[JobHandle, Job] = {}
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._health = ClusterHealth(online=False, reason="the service was not asked yet")
        self._health_at = float("-inf")

    async def submit(self, job: PilotJob) -> JobHandle:
        """Hand a job over; see `Cluster`."""
        text = msgspec.json.encode(job).decode()
        arguments = [self._command, text, job.expires_unix_s, _TAIL_BYTES]
        size = len(json.dumps(arguments))
        if size > _LARGEST:
            raise SubmitFailed(f"a job of {size:,} bytes, at most {_LARGEST:,} go through Globus Compute")
        known = Job(job.lease, job.expires_unix_s, self._clock())
        try:
            if not self._function:
                self._function = await self._hand_over(
                    self._service.register, globus_pilot.source(), globus_pilot.FUNCTION
                )
        except ServiceFault as fault:
            raise SubmitFailed(fault.words) from fault
        try:
            known.task = await self._hand_over(self._service.submit, known.group, self._function, arguments)
        except ServiceFault as fault:
            if fault.refused:
                raise SubmitFailed(fault.words) from fault
            known.doubt = fault.words
        self._jobs[known.handle] = known
        return known.handle

    async def recover(self, lease: str, handle: JobHandle | None) -> JobHandle | None:
        """Find a task by its group; see `Cluster`."""
        now = self._clock()
        job = read_handle(lease, handle, now) or Job(lease, now + self._longest_s, now)
        known = job.handle
        self._jobs[known] = job
        try:
            await self._ask([job])
        except ServiceFault as fault:
            job.doubt = job.doubt or fault.words  # `observe` asks again
        if job.ended is None:
            return known
        del self._jobs[known]
        return None

    async def look(self, handle: JobHandle) -> JobView:
        """Tell what the service knows of a task, which is little; see `Cluster`."""
        await self._refresh()
        job = self._jobs.get(handle)
        if job is None or job.ended is not None:
            return JobView(Place.UNKNOWN)
        match job.state.status:
            case "running":
                return JobView(Place.RUNNING)
            case "received" | "waiting-for-ep":
                return JobView(Place.QUEUED, words="waits for the endpoint")
            case "waiting-for-nodes" | "waiting-for-launch":
                return JobView(Place.QUEUED, words="the endpoint has it; waits for a node, or starts")
            case _:
                return JobView(Place.UNKNOWN, words=job.doubt)

    async def health(self) -> ClusterHealth:
        """Ask whether the endpoint is online; see `Cluster`."""
        if self._clock() - self._health_at >= _HEALTH_S:
            try:
                status = await self._call(self._service.endpoint_status)
            except ServiceFault as fault:
                self._health = ClusterHealth(online=False, reason=fault.words)
            else:
                online = status == "online"
                reason = "" if online else "the Globus Compute endpoint is offline: its agent sends no heartbeat"
                self._health = ClusterHealth(online=online, reason=reason)
            self._health_at = self._clock()
        return self._health

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait for a task's end; see `Cluster`."""
        job = self._jobs[handle]
        try:
            while job.ended is None:
                left = job.expires + _MARGIN_S - self._clock()
                if left <= 0:
                    said = job.doubt or f"the service says {job.state.status or 'nothing'!r}"
                    return Ended(None, "", f"its lease is over, and Globus Compute told no end of it; {said}")
                await self._refresh()
                if job.ended is None:
                    await asyncio.sleep(min(_POLL_S, left))
        finally:
            self._jobs.pop(handle, None)  # nobody asks about it any more
        return job.ended

    async def stop(self, handle: JobHandle) -> None:
        """Nothing: the service offers no way, and dispatch tells the worker itself; see `Cluster`."""

    async def close(self) -> None:
        """Nothing: running workers go on, the next run finds them, and no thread holds this one's end."""

    async def _refresh(self) -> None:
        """Bring all tasks up to date, unless that was just done; what can't be asked stays as it is."""
        async with self._asking:
            if self._clock() - self._asked_at < _POLL_S:
                return
            try:
                await self._ask([job for job in self._jobs.values() if job.ended is None])
            except ServiceFault as fault:
                # `health` says it, too.
                for job in self._jobs.values():
                    job.doubt = fault.words
            self._asked_at = self._clock()

    async def _ask(self, jobs: list[Job]) -> None:
        """Ask for the states of jobs.

        Raises:
            ServiceFault: the service can't be asked.
        """
        for job in jobs:
            if not job.task:
                await self._ask_for_task(job)
        by_task = {job.task: job for job in jobs if job.task}
        if by_task:
            for task, state in (await self._call(self._service.states, list(by_task))).items():
                if (told := by_task.get(task)) is not None:
                    told.state, told.doubt = state, ""
                    told.ended = end_of(state)

    async def _ask_for_task(self, job: Job) -> None:
        """Find out whether a submission was taken."""
        if tasks := await self._call(self._service.tasks_of, job.group):
            job.task = tasks[0]
            return
        # A submission that was given up may still be on its way.
        if self._clock() - job.since >= 2 * self._timeout_s:
            job.ended = Ended(None, "", job.doubt or "Globus Compute has no task of it")

    async def _hand_over(self, call: Callable[..., str], *arguments: Any) -> str:
        # Twice: the transport's own limit is for each of connecting and reading.
        return await in_thread(call, *arguments, timeout_s=2 * self._timeout_s)

    async def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await in_thread(call, *arguments, timeout_s=2 * ASK_S)


def check_user_config(config: GlobusConfig, where: str) -> None:
    """Check what goes to the endpoint's template.

    Raises:
        ConfigError: it does not fit the schema, or that is none; the message names the place in it.
    """
    if config.user_endpoint_schema is None:
        return
    field_name = f"{where}.user_endpoint_schema"
    try:
        schema = json.loads(config.user_endpoint_schema.read_text(encoding="utf-8"))
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
    except (OSError, ValueError, jsonschema.SchemaError) as error:
        reason = error.message if isinstance(error, jsonschema.SchemaError) else error
        raise ConfigError(f"{config.user_endpoint_schema} is no JSON schema: {reason}", param=field_name) from error
    fault = jsonschema.exceptions.best_match(validator(schema).iter_errors(config.user_endpoint_config))
    if fault is not None:
        path = ".".join([where, "user_endpoint_config", *map(str, fault.absolute_path)])
        raise ConfigError(fault.message, param=path)
