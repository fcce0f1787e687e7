"""The clusters of the simulation, what goes wrong on them, and the policies that are compared."""

import random
from dataclasses import dataclass
from typing import Final

from campus.trace import Trace
from campus.workload import DAY_S, START
from stream_hpc_dispatch.plan import ClusterSpec, Limits, PoolKey, PoolSpec

MODEL: Final = "campus-model"
LIMITS: Final = Limits(lost_after_s=300.0, remove_after_s=30.0)
"""The plan's own, but for silence: simulated workers send a heartbeat every two minutes and when their load changes."""


@dataclass(frozen=True)
class Cluster:
    """One cluster."""

    name: str
    priority: int
    hours_a_day: float | None
    trace: Trace
    startup_s: float = 150.0
    """Median."""


@dataclass(frozen=True)
class Troubles:
    """How often what goes wrong; 0: never."""

    submit_error: float = 0.02
    start_failure: float = 0.02
    killed_each_s: float = 5 * DAY_S
    """Mean time between kills of one job."""
    outage_each_s: float = 7 * DAY_S
    outage_s: float = 5400.0


@dataclass(frozen=True)
class Policy:
    """A way to run the pools: `plan.step` with these numbers."""

    name: str
    min_ready: int
    max_workers: int
    idle_timeout_s: float
    budget: bool = True
    target_load: float = 0.75

    def pool(self, cluster: str) -> PoolSpec:
        """What it asks of the pool on a cluster."""
        return PoolSpec(
            key=PoolKey(cluster, MODEL),
            min_ready=self.min_ready,
            max_workers=self.max_workers,
            walltime_s=12 * 3600.0,
            start_limit_s=900.0,
            renewal_surge=1,
            max_requests=8,
            target_load=self.target_load,
            idle_timeout_s=self.idle_timeout_s,
        )

    def cluster(self, cluster: Cluster) -> ClusterSpec:
        """What it may use of a cluster."""
        hours = cluster.hours_a_day if self.budget else None
        return ClusterSpec(cluster.name, cluster.priority, None if hours is None else hours * 3600)


STREAM: Final = Policy("stream", min_ready=1, max_workers=4, idle_timeout_s=900.0)
POLICIES: Final = (
    STREAM,
    Policy("always-on", min_ready=4, max_workers=4, idle_timeout_s=1e9, budget=False),
    Policy("on-demand", min_ready=0, max_workers=4, idle_timeout_s=60.0),
    Policy("fixed pool", min_ready=1, max_workers=1, idle_timeout_s=1e9),
)
"""always-on: enough for the peak, day and night; on-demand: nothing runs that nobody uses; fixed pool: one worker."""


def outages(name: str, troubles: Troubles, seed: int, days: int) -> list[tuple[float, float]]:
    """Draw when a cluster is away: from, until."""
    if not troubles.outage_each_s:
        return []
    draw = random.Random(f"outages/{name}/{seed}")  # noqa: S311  (a simulation)
    away, at = [], START
    while (at := at + draw.expovariate(1 / troubles.outage_each_s)) < START + days * DAY_S:
        back = at + draw.expovariate(1 / troubles.outage_s)
        away.append((at, back))
        at = back
    return away
