"""Backend `parsl`: jobs of a batch system, submitted from a machine that may do so. No cloud service is involved.

Parsl's provider writes the job script and submits it. Its executors are not used: their interchange is a process of
ours, and all jobs would die with it. Here a job belongs to nobody but the batch system: it is named after its lease,
so any later run finds it again, and its worker speaks for itself over the relay.

Who may know a lease's secret reads it from the lease's folder (`job_folder.py`): it is in no script, argument,
environment or record of the batch system.

One poll asks for all jobs. A batch system that can't be asked makes the cluster offline and proves nothing about its
jobs; a job is over when a listing says how it ended, or when it is missing in `_MISSES` listings in a row.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from stream_core.wire.job import PilotJob
from stream_hpc_dispatch.clusters.base import ClusterHealth, Ended, JobHandle, JobView, Place, SubmitFailed
from stream_hpc_dispatch.clusters.batch import VAGUE, Away, JobEnd, JobRequest, Rejected, Scheduler, Sighting, is_safe
from stream_hpc_dispatch.clusters.job_folder import JobFolder, forget_closed, prepare_root

_log = logging.getLogger(__name__)

_KEPT_FOLDERS: Final = 200
"""Folders of ended jobs, the newest ones, for their logs."""
_MISSES: Final = 3
_NAMELESS_S: Final = 30.0
"""A job that was never seen may be on its way for so long: its submission was not answered in time."""
_STOPPING_POLL_S: Final = 0.5
"""Between two polls while a job is being stopped: somebody waits for it."""
_GIVEN_UP_S: Final = 3600.0
"""After its lease's end a job is waited for so long; its worker has ended by itself long before."""
_UNTOLD_LEASE_S: Final = 7 * 86_400.0
"""Taken for the lease's end of a job whose folder is gone."""
_CANCELS_S: Final = 10.0
"""Between two orders to cancel the same job."""
_UNTOLD: Final = "the batch system does not know the job any more, and it left no exit code"
_COMPLAINTS: Final = (
    ("due to time limit", "walltime reached"),
    ("exceeded limit", "walltime reached"),
    ("oom", "out of memory"),
    ("out of memory", "out of memory"),
    ("node failure", "node failed"),
    ("preempt", "preempted by another job"),
    ("cancelled", "cancelled"),
)
"""What batch systems write into a job's error output as they end it; the first that fits."""


_UNSEEN: Final = JobView(Place.UNKNOWN)


@dataclass(slots=True)
class _Job:
    """One job that has not ended."""

    folder: JobFolder
    expires: float
    since: float
    """Of our knowledge of it."""
    id: str = ""
    """Empty until a listing has told it: it is looked for by its name."""
    view: JobView = _UNSEEN
    misses: int = 0
    stopping: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ended: Ended | None = None

    @property
    def handle(self) -> JobHandle:
        """Lease, id ("-": not known), the lease's end: what the next run needs to find it."""
        return JobHandle(f"{self.folder.path.name} {self.id or '-'} {int(self.expires)}")

    def is_it(self, sighting: Sighting) -> bool:
        """Whether a listed job is this one: its name holds the lease; ids may come again, names don't."""
        return f"{sighting.name}.".startswith(f"{self.folder.job_name}.")


class ParslCluster:
    """Runs workers as jobs of a batch system.

    Args:
        scheduler: the batch system.
        command: starts a worker on a node.
        root: private folder that the nodes see; of this cluster and this program alone.
        nodes: of one job, by model.
        grace_s: seconds between SIGTERM and the order to cancel.
        poll_s: seconds between two polls.
        tied: no later run takes jobs over, so none may be left.
        clock: gives unix seconds.

    Raises:
        OSError: the folder can't be made.
    """

    backend: ClassVar[str] = "parsl"

    def __init__(
        self,
        scheduler: Scheduler,
        command: list[str],
        root: Path,
        *,
        nodes: dict[str, int],
        grace_s: float,
        poll_s: float,
        tied: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._scheduler = scheduler
        self._command = command
        self._root = root
        self._nodes = nodes
        self._grace_s = grace_s
        self._poll_s = poll_s
        self._tied = tied
        self._clock = clock
        self._jobs: dict[JobHandle, _Job] = {}
        self._left = {folder.path.name: folder for folder in prepare_root(root)}
        """Jobs of an earlier run that nobody has claimed yet."""
        self._submitting = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._away = ""
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None

    async def submit(self, job: PilotJob) -> JobHandle:
        """Write the job down for its worker and submit a script that starts one; see `Cluster`."""
        folder = JobFolder(self._root / job.lease)
        nodes = max((self._nodes.get(model.id, 1) for model in job.models), default=1)
        try:
            await asyncio.to_thread(forget_closed, self._root, _KEPT_FOLDERS)
            await asyncio.to_thread(folder.create, job)
            async with self._submitting:
                walltime_s = job.expires_unix_s - self._clock()
                request = JobRequest(folder.job_name, folder.path, folder.script(self._command), walltime_s, nodes)
                job_id = await asyncio.to_thread(self._scheduler.submit, request)
        except Rejected as error:
            folder.remove()
            raise SubmitFailed(error.message) from error
        except FileExistsError as error:
            raise SubmitFailed(f"{folder.path}: there is a job of this lease") from error
        except OSError as error:
            folder.remove()
            raise SubmitFailed(f"{folder.path}: {error.strerror}") from error
        except Away as error:
            # It may have been taken all the same: without its file it has nothing to do, and it is taken back.
            folder.withdraw()
            self._take_back(folder)
            raise SubmitFailed(error.message) from error
        submitted = _Job(folder, job.expires_unix_s, self._clock(), job_id)
        handle = self._follow(submitted)
        _log.info("job submitted", extra={"lease": job.lease, "job": job_id, "folder": str(folder.path)})
        return handle

    async def recover(self, lease: str, handle: JobHandle | None) -> JobHandle | None:
        """Find a job by its id, and by its name, which holds the lease; see `Cluster`."""
        folder = self._left.pop(lease, JobFolder(self._root / lease))
        job = self._job(folder, handle)
        told = await self._list([job], at_most_s=self._poll_s)
        if told is None:
            # Nobody knows: a job that can't be asked for counts as there, and later polls tell.
            return self._follow(job)
        sighting = next(filter(job.is_it, told), None)
        if sighting is None or isinstance(sighting.state, JobEnd):
            await asyncio.to_thread(folder.close)
            return None
        job.id, job.view = sighting.id, sighting.state
        return self._follow(job)

    async def look(self, handle: JobHandle) -> JobView:
        """Tell what the last poll saw; see `Cluster`."""
        job = self._jobs.get(handle)
        return job.view if job else _UNSEEN

    async def health(self) -> ClusterHealth:
        """Tell whether the batch system answers; see `Cluster`."""
        left, self._left = self._left, {}
        for folder in left.values():
            # Adoption is over, and nobody has claimed these: their leases are lost.
            _log.warning("taking back a job of an earlier run that no lease knows", extra={"lease": folder.path.name})
            self._take_back(folder)
        await self._list([], at_most_s=self._poll_s)
        return ClusterHealth(online=not self._away, reason=self._away)

    async def observe(self, handle: JobHandle) -> Ended:
        """Wait until the batch system has told a job's end; see `Cluster`."""
        job = self._jobs[handle]
        await job.over.wait()
        self._jobs.pop(handle, None)
        return job.ended or Ended(None, "")

    async def stop(self, handle: JobHandle) -> None:
        """Send SIGTERM to a running job's worker, and cancel the job after the grace; see `Cluster`."""
        job = self._jobs.get(handle)
        if job is None or job.stopping:
            return
        job.stopping = True
        self._wake.set()
        if job.id and job.view.place is Place.RUNNING:
            await self._order(self._scheduler.terminate, job)
            await _within(self._grace_s, job.over)
        while not job.over.is_set():
            if job.id:
                await self._order(self._scheduler.cancel, job)
            await _within(_CANCELS_S, job.over)

    async def close(self) -> None:
        """End the polls; jobs go on unless no later run will know them; see `Cluster`."""
        if self._tied:
            await asyncio.gather(*(self._order(self._scheduler.cancel, job) for job in self._jobs.values() if job.id))
        tasks = [*self._tasks, *filter(None, [self._polling])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, job: _Job) -> JobHandle:
        handle = job.handle
        self._jobs[handle] = job
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
            self._polling.add_done_callback(_report)
        self._wake.set()
        return handle

    def _take_back(self, folder: JobFolder) -> None:
        """Cancel a job that nobody wants, if there is one."""
        handle = self._follow(self._job(folder, None))

        async def end() -> None:
            await self.stop(handle)
            await self.observe(handle)

        self._spawn(end())

    def _job(self, folder: JobFolder, handle: JobHandle | None) -> _Job:
        """Describe a job that an earlier run, or an unanswered submission, has left."""
        job_id, expires = _parse(handle)
        now = self._clock()
        return _Job(folder, expires or folder.expires or now + _UNTOLD_LEASE_S, now, job_id)

    async def _poll(self) -> None:
        while True:
            jobs = list(self._jobs.values())
            told = await self._list(jobs) if jobs else []
            for job in jobs:
                if not job.over.is_set():
                    await self._see(job, told)
            self._wake.clear()
            hurry = any(job.stopping and job.id and not job.over.is_set() for job in self._jobs.values())
            await _within(min(_STOPPING_POLL_S, self._poll_s) if hurry else self._poll_s, self._wake)

    async def _list(self, jobs: list[_Job], *, at_most_s: float = 0.0) -> list[Sighting] | None:
        """Ask the batch system; None when it can't be asked.

        Args:
            jobs: that are asked for, besides all that are followed.
            at_most_s: a failure, or for no job an answer, that is not older counts.
        """
        async with self._asking:
            recent = self._clock() - self._asked_at < at_most_s
            if recent and (self._away or not jobs):
                return None if self._away else []
            asked = [*jobs, *self._jobs.values()]
            ids = [job.id for job in asked if job.id]
            by_name = any(not job.id for job in asked)
            try:
                told = await asyncio.to_thread(self._scheduler.list_jobs, list(dict.fromkeys(ids)), by_name=by_name)
                away = ""
            except Away as error:
                told, away = None, error.message
            if away != self._away:
                if away:
                    _log.warning("the batch system can't be asked: %s", away)
                else:
                    _log.info("the batch system answers again")
            self._asked_at, self._away = self._clock(), away
            return told

    async def _see(self, job: _Job, told: list[Sighting] | None) -> None:
        """Take in what a listing says of a job; None: the batch system could not be asked."""
        now = self._clock()
        sighting = next(filter(job.is_it, told or []), None)
        if sighting is not None:
            job.misses, job.id = 0, sighting.id
            if isinstance(sighting.state, JobEnd):
                await self._finish(job, sighting.state)
                return
            job.view = sighting.state
        elif told is not None:
            job.misses += 1
            if job.misses >= _MISSES and (job.id or now - job.since >= _NAMELESS_S):
                await self._finish(job, JobEnd(reason=_UNTOLD))
                return
        elif await asyncio.to_thread(lambda: job.folder.exit_code) is not None:
            # Its script is at its end, whoever can't be asked.
            await self._finish(job, JobEnd())
            return
        if now > job.expires + _GIVEN_UP_S:
            await self._finish(job, JobEnd(reason=self._away or "the batch system does not get rid of it"))

    async def _finish(self, job: _Job, end: JobEnd) -> None:
        if end.reason == "cancelled" and not job.stopping:
            who = await asyncio.to_thread(self._scheduler.who_cancelled, job.id)
            end = JobEnd(end.exit_code, f"cancelled by {who}" if who else end.reason)
        job.ended = await asyncio.to_thread(_take_stock, job.folder, end)
        facts = {"exit_code": job.ended.exit_code, "reason": job.ended.reason}
        _log.info("job ended", extra={"lease": job.folder.path.name, "job": job.id, **facts})
        job.over.set()

    async def _order(self, order: Callable[[str], None], job: _Job) -> None:
        """Tell the batch system to do something; one that can't be told now is told again later."""
        try:
            await asyncio.to_thread(order, job.id)
        except Away as error:
            _log.warning("a job can't be stopped now: %s", error.message, extra={"job": job.id})
        self._wake.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_report)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parse(handle: JobHandle | None) -> tuple[str, float | None]:
    """Read a job's id and its lease's end; empty and None where they are not told."""
    _, job_id, expires, *_ = f"{handle or ''} - -".split(" ")
    return job_id if is_safe(job_id) and job_id != "-" else "", float(expires) if expires.isdecimal() else None


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a task of this cluster died", exc_info=error)


def _take_stock(folder: JobFolder, end: JobEnd) -> Ended:
    """Put together what the batch system and the job's own files tell of its end, and close its folder."""
    exit_code, reason = folder.exit_code, end.reason
    if exit_code is None:
        exit_code = end.exit_code
    if reason in {VAGUE, _UNTOLD}:
        complaints = folder.complaints.lower() if exit_code is None else ""
        said = next((words for mark, words in _COMPLAINTS if mark in complaints), "")
        reason = said or ("" if exit_code is not None else reason)
    ended = Ended(exit_code, folder.log_tail, reason)
    folder.close()
    return ended


async def _within(limit_s: float, event: asyncio.Event) -> None:
    """Wait for an event, but not longer."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        pass
