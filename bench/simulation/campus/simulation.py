"""A campus over simulated days: every request, every job, driven by the very `plan.step` that runs in production.

Event by event, off a heap; a gateway's part is played here: it sends a request to the READY worker with the least
load, lets it wait while there is none with room, asks for workers as a gateway does, and refuses after `PATIENCE_S`.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from campus.workload import DAY_S, Workload
from campus.world import LIMITS, MODEL, Cluster, Policy, Troubles, outages
from stream_hpc_dispatch import plan
from stream_hpc_dispatch.choice import choose

PATIENCE_S: Final = 300.0
BEAT_S: Final = 120.0
TICK_S: Final = 60.0
ASK_S: Final = 4.0
QUEUE_LOOK_S: Final = 60.0
STOPPED_S: Final = 5.0
"""What a cluster takes to end a job that was told to stop."""
FIRST_TOKEN_S: Final = 0.25
"""Of an empty engine, the road included."""
CROWDED_S: Final = 0.03
"""More for each request that the engine has."""


@dataclass(eq=False, slots=True)
class Job:
    """One job, and its worker."""

    number: int
    cluster: str
    submitted: float
    expires: float
    began: float | None = None
    ready_at: float | None = None
    requests: dict[int, float] = field(default_factory=dict)
    """Under way: when each one's answer ends."""
    served: int = 0
    told: int = 0
    """The load in its last heartbeat."""
    beat_due: bool = False
    stopped: bool = False
    ended: bool = False


@dataclass
class Result:
    """What came out."""

    first_token_s: list[float] = field(default_factory=list)
    at_once: int = 0
    moved: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    failed: int = 0
    node_s: dict[tuple[str, int], float] = field(default_factory=dict)
    """By cluster and day."""
    broken: Counter[str] = field(default_factory=Counter)
    """Properties that did not hold."""
    steps: int = 0
    workers: list[tuple[float, int, int]] = field(default_factory=list)
    """Every ten minutes: when, workers ready, requests under way."""

    @property
    def hours(self) -> float:
        """Node-hours used: GPU-hours, at one GPU a node."""
        return sum(self.node_s.values()) / 3600


class Simulation:
    """One policy on one workload.

    Args:
        policy: how the pools are run.
        clusters: the world.
        workload: the requests.
        troubles: what goes wrong.
        seed: of everything that is drawn here.
    """

    def __init__(
        self, policy: Policy, clusters: list[Cluster], workload: Workload, troubles: Troubles, seed: int
    ) -> None:
        self._policy = policy
        self._clusters = {cluster.name: cluster for cluster in clusters}
        self._workload = workload
        self._troubles = troubles
        self._draw = random.Random(f"jobs/{seed}")  # noqa: S311  (a simulation)
        self._end = workload.arrivals[-1] + 900.0
        pools = tuple(plan.PoolState(policy.pool(name)) for name in self._clusters)
        self._spec = pools[0].spec
        sites = tuple(plan.ClusterState(policy.cluster(cluster)) for cluster in clusters)
        self._state = plan.State(pools, LIMITS, clusters=sites)
        self._jobs: dict[int, Job] = {}
        self._open: list[Job] = []
        self._waiting: deque[int] = deque()
        self._asking = False
        self._offline: set[str] = set()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._now = 0.0
        self._sampled = 0.0
        self.result = Result()
        for name in self._clusters:
            for away, back in outages(name, troubles, seed, workload.days):
                self._at(away, self._cluster_goes, name)
                self._at(back, self._cluster_comes, name)

    def run(self) -> Result:
        """Play it all."""
        arrivals, heap = self._workload.arrivals, self._heap
        self._now = arrivals[0] // DAY_S * DAY_S
        self._at(self._now, self._tick)
        self._at(self._end, self._stop)
        for index, at in enumerate(arrivals):
            while heap and heap[0][0] <= at:
                self._play()
            self._now = at
            self._arrive(index)
        while heap:
            self._play()
        self._check_the_end()
        return self.result

    def _play(self) -> None:
        self._now, _, action, arguments = heapq.heappop(self._heap)
        action(*arguments)

    def _at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, action, arguments))

    # The gateway's part

    def _arrive(self, index: int) -> None:
        if not self._waiting and (job := self._roomy()):
            self.result.at_once += 1
            self._give(job, index)
            return
        self._waiting.append(index)
        if not self._asking:
            self._ask()

    def _roomy(self) -> Job | None:
        job = min(self._open, key=_load, default=None)
        return job if job and len(job.requests) < self._spec.max_requests else None

    def _give(self, job: Job, index: int) -> None:
        waited_s = self._now - self._workload.arrivals[index]
        first_s = FIRST_TOKEN_S + CROWDED_S * len(job.requests)
        self.result.first_token_s.append(waited_s + first_s)
        self._take(job, index, self._now + first_s + self._workload.answers_s[index])

    def _take(self, job: Job, index: int, done: float) -> None:
        job.requests[index] = done
        job.served += 1
        self._at(done, self._finish, job, index)
        self._load_changed(job)

    def _finish(self, job: Job, index: int) -> None:
        if job.requests.pop(index, None) is None:
            return  # it was moved to another worker
        self._load_changed(job)
        self._serve_waiting()
        if not job.requests and self._now >= job.expires:
            self._end_job(job, 0)

    def _serve_waiting(self) -> None:
        while self._waiting and (job := self._roomy()):
            self._give(job, self._waiting.popleft())

    def _ask(self) -> None:
        """Ask for workers while requests wait, and refuse those that waited too long."""
        arrivals = self._workload.arrivals
        while self._waiting and self._now - arrivals[self._waiting[0]] >= PATIENCE_S:
            self.result.refused[self._why()] += 1
            self._waiting.popleft()
        self._asking = bool(self._waiting)
        if self._asking:
            waiting = len(self._waiting)
            key = choose(self._state, MODEL, self._now, waiting=waiting, gateway="gateway")
            self._at(self._now + ASK_S, self._ask)
            self._step(plan.Requested(self._now, key, waiting, "gateway", anywhere=True))

    def _why(self) -> str:
        pools = self._state.pools
        if all(pool.blocked for pool in pools):
            return "budget or outage"
        if any(pool.failures for pool in pools):
            return "starts failed"
        return "no worker in time" if not self._open else "all workers full"

    # The clusters' part

    def _step(self, event: plan.Event) -> None:
        self.result.steps += 1
        self._state, actions = plan.step(self._state, event)
        for action in actions:
            match action:
                case plan.StartJob(number, key, expires):
                    self._start(number, key.cluster, expires)
                case plan.StopJob(number):
                    self._check_stop(self._jobs[number], actions)
                    self._jobs[number].stopped = True
                    self._at(self._now + STOPPED_S, self._end_job, self._jobs[number], -15)
                case plan.ReportFailure():
                    self.result.failed += 1
        if self._refresh():
            self._serve_waiting()

    def _refresh(self) -> bool:
        """See which workers take requests, as the published pool says."""
        before = len(self._open)
        self._open = [
            self._jobs[pilot.number]
            for pool in self._state.pools
            for pilot in pool.pilots
            if pilot.phase is plan.Phase.READY and not pilot.stopping
        ]
        return len(self._open) > before

    def _start(self, number: int, cluster: str, expires: float) -> None:
        job = self._jobs[number] = Job(number, cluster, self._now, expires)
        self.result.jobs += 1
        alive = sum(other.cluster == cluster for other in self._jobs.values())
        self.result.broken["above max_workers"] += alive > self._spec.max_workers + self._spec.renewal_surge
        self.result.broken["started while offline"] += cluster in self._offline
        if self._draw.random() < self._troubles.submit_error:
            self._at(self._now + 1.0, self._end_job, job, None, "sbatch: Socket timed out", False)  # noqa: FBT003
            return
        waits = self._clusters[cluster].trace[int(self._now // 3600) % 168]
        self._at(self._now + self._draw.choice(waits), self._begin, job)
        self._at(self._now + 1.0, self._look, job)

    def _look(self, job: Job) -> None:
        if not job.ended and job.began is None:
            self._step(plan.JobSeen(self._now, job.number, queued=True))
            self._at(self._now + QUEUE_LOOK_S, self._look, job)

    def _begin(self, job: Job) -> None:
        if job.ended:
            return
        job.began = self._now
        self._step(plan.JobSeen(self._now, job.number, queued=False))
        startup_s = self._clusters[job.cluster].startup_s * self._draw.lognormvariate(0.0, 0.25)
        if self._draw.random() < self._troubles.start_failure:
            self._at(self._now + startup_s / 2, self._end_job, job, 1, "torch.OutOfMemoryError: CUDA out of memory")
            return
        self._at(self._now + startup_s, self._announce, job)
        if self._troubles.killed_each_s:
            self._at(self._now + self._draw.expovariate(1 / self._troubles.killed_each_s), self._end_job, job, -9)

    def _announce(self, job: Job) -> None:
        if job.ended:
            return
        job.ready_at = self._now
        self._at(job.expires, self._expire, job)
        self._step(plan.Announced(self._now, job.number))
        self._beat(job)

    def _load_changed(self, job: Job) -> None:
        """Workers send a heartbeat every 2 s; one is simulated when it would say something that matters."""
        if not job.beat_due and abs(len(job.requests) - job.told) >= self._spec.max_requests // 4:
            job.beat_due = True
            self._at(self._now + 1.0, self._beat, job, True)  # noqa: FBT003

    def _beat(self, job: Job, extra: bool = False) -> None:
        if job.ended:
            return
        job.told, job.beat_due = len(job.requests), job.beat_due and not extra
        draining = self._now >= job.expires
        self._step(
            plan.StatusSeen(self._now, job.number, running=len(job.requests), served=job.served, draining=draining)
        )
        if not extra:
            self._at(self._now + BEAT_S, self._beat, job)

    def _expire(self, job: Job) -> None:
        if not job.requests:
            self._end_job(job, 0)

    def _end_job(self, job: Job, exit_code: int | None, tail: str = "", started: bool = True) -> None:
        if job.ended:
            return
        job.ended = True
        del self._jobs[job.number]
        if job.began is not None:
            self._account(job.cluster, job.began, self._now)
        self._open = [other for other in self._open if other is not job]
        self._step(plan.JobEnded(self._now, job.number, exit_code, tail, started=started))
        for index, done in job.requests.items():
            self._move(index, done)

    def _move(self, index: int, done: float) -> None:
        """Go on with an answer on another worker; its first token was there already."""
        self.result.moved += 1
        if other := min(self._open, key=_load, default=None):
            self._take(other, index, max(done, self._now + FIRST_TOKEN_S))
        else:
            self.result.refused["cut off"] += 1

    def _cluster_goes(self, name: str) -> None:
        self._offline.add(name)
        for job in [job for job in self._jobs.values() if job.cluster == name and job.began is not None]:
            if self._draw.random() < 0.3:
                self._end_job(job, -9)
        self._step(plan.ClusterSeen(self._now, name, online=False, reason="the scheduler does not answer"))

    def _cluster_comes(self, name: str) -> None:
        self._offline.discard(name)
        self._step(plan.ClusterSeen(self._now, name, online=True))

    def _tick(self) -> None:
        self._step(plan.Tick(self._now))
        if self._now - self._sampled >= 600.0:
            self._sampled = self._now
            under_way = sum(len(job.requests) for job in self._jobs.values())
            self.result.workers.append((self._now, len(self._open), under_way))
        if self._now < self._end + DAY_S and (self._jobs or self._now < self._end):
            self._at(self._now + TICK_S, self._tick)

    def _stop(self) -> None:
        self._step(plan.StopRequested(self._now))

    # What must hold

    def _account(self, cluster: str, start: float, end: float) -> None:
        while start < end:
            day = int(start // DAY_S)
            part = min(end, (day + 1) * DAY_S) - start
            self.result.node_s[cluster, day] = self.result.node_s.get((cluster, day), 0.0) + part
            start += part

    def _check_stop(self, job: Job, actions: list[plan.Action]) -> None:
        failed = any(isinstance(action, plan.ReportFailure) and action.pilot == job.number for action in actions)
        self.result.broken["stopped twice"] += job.stopped
        if failed or self._state.stopping or self._now >= job.expires:
            return
        self.result.broken["stopped while busy"] += bool(job.requests)
        if job.began is not None:
            lived = job.ready_at is not None and self._now - job.ready_at >= job.ready_at - job.began
            self.result.broken["thrashing"] += not lived

    def _check_the_end(self) -> None:
        result = self.result
        result.broken["orphans"] += len(self._jobs)
        told = len(result.first_token_s) + sum(result.refused.values()) - result.refused["cut off"]
        result.broken["requests without an answer or a reason"] += len(self._workload.arrivals) - told
        result.broken["requests left waiting"] += len(self._waiting)
        for (cluster, _), node_s in result.node_s.items():
            limit_s = self._policy.cluster(self._clusters[cluster]).node_s_per_day
            result.broken["above the budget"] += limit_s is not None and node_s > limit_s


def _load(job: Job) -> int:
    return len(job.requests)
