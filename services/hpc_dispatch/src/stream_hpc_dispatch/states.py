"""What the plan knows: pools, their pilots, their clusters. Pure values; `plan` moves them, and `plan` alone.

`now` and all other times are in unix seconds, everywhere. Structs of msgspec, since every event makes a few new ones
and their `replace` costs a twentieth of a dataclass's.
"""

from enum import Enum
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace


class PoolKey(NamedTuple):
    """Names a pool."""

    cluster: str
    model: str


class PoolSpec(Struct, frozen=True):
    """What the deployment asks of one pool."""

    key: PoolKey
    min_ready: int
    max_workers: int
    walltime_s: float
    start_limit_s: float
    """What a worker may take from when its job runs until its engine answers."""
    renewal_surge: int = 0
    """Jobs above `max_workers` while leases are renewed."""
    max_requests: int = 256
    """Requests one worker runs at once; 1: it ends after its first one."""
    target_load: float = 0.75
    """Share of `max_requests`, over all ready workers, at which another worker is started."""
    idle_timeout_s: float = 900.0
    queue_margin_s: float = 60.0
    pending_limit_s: float = 86_400.0
    max_failures: int = 10
    retry_after_s: float = 3600.0
    nodes: int = 1
    """Of one job."""


class ClusterSpec(Struct, frozen=True):
    """What the deployment says of one cluster."""

    name: str
    priority: int = 0
    node_s_per_day: float | None = None
    """Node-seconds from 00:00 to 24:00 UTC; None: no limit."""


class Limits(Struct, frozen=True):
    """The clocks of the plan, in seconds."""

    lost_after_s: float = 10.0
    remove_after_s: float = 30.0
    renew_before_s: float = 120.0
    expiry_grace_s: float = 30.0
    ending_s: float = 60.0
    """What the budget keeps for a job that was told to stop to be gone."""
    backoff_first_s: float = 0.5
    backoff_last_s: float = 60.0
    ask_lasts_s: float = 5.0
    """A gateway's count of waiting requests holds for so long."""
    settle_s: float = 2.0
    """What gateways get to hear that a worker takes nothing new, before its idleness is believed."""


class Phase(Enum):
    """Where a pilot is; the table of `plan`."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"


class Pilot(Struct, frozen=True):
    """One job of a pool."""

    number: int
    phase: Phase
    since: float
    """When it came into this phase."""
    expires: float
    seen: float | None = None
    """Its last STATUS."""
    announced: bool = False
    running: int = 0
    note: str = ""
    """The worker's own words about its engine."""
    stopping: bool = False
    submitted: float = 0.0
    ran_from: float = 0.0
    """Its job did not run before: its submission, then each time that it was seen waiting."""
    queued: bool | None = None
    """Whether its job waits in its cluster's queue; None: not told."""
    position: int | None = None
    """In that queue, from 1."""
    starts: float | None = None
    """When the batch system expects to start it."""
    words: str = ""
    """Why it waits there, as the batch system says it."""
    ready_at: float | None = None
    """First READY."""
    startup_s: float = 0.0
    """From its job's start to its first READY; 0: not known."""
    waiting: int = 0
    """Requests that its engine has queued."""
    cache_use: float | None = None
    first_token_ms: float | None = None
    served: int = 0
    """Requests begun."""
    retiring: bool = False
    """Not needed any more: it takes nothing new, and is stopped when it has nothing left."""
    adopted: bool = False
    failed: bool = False
    """Its failure has been counted."""

    @property
    def load(self) -> int:
        """Requests that it has."""
        return self.running + self.waiting


class Ask(Struct, frozen=True):
    """Requests of one gateway that wait for a pool's workers."""

    gateway: str
    anywhere: bool
    """Any cluster would do for them."""
    waiting: int
    at: float
    begun: int
    """What the pool had begun then; what it began since is no longer waiting."""


class Need(NamedTuple):
    """When a number of workers was last needed."""

    at: float
    workers: int


class PoolState(Struct, frozen=True):
    """One pool: what is asked, what is there, and how starting went."""

    spec: PoolSpec
    pilots: tuple[Pilot, ...] = ()
    requested: bool = False
    """A gateway asked for a worker and none counts yet."""
    failures: int = 0
    """In a row, without a READY between them."""
    retry_at: float = 0.0
    reason: str = ""
    """Of the last failure, in words."""
    blocked: str = ""
    """Why nothing is started though something is wanted, in words: its cluster's budget, or that it is offline."""
    asks: tuple[Ask, ...] = ()
    begun: int = 0
    """Requests that its workers have begun, as far as they told."""
    needs: tuple[Need, ...] = ()
    """Of the last `idle_timeout_s`: each entry needed more workers than all after it."""
    waits: tuple[float, ...] = ()
    """Seconds in the queue of its last jobs, the newest last."""
    startups: tuple[float, ...] = ()
    """Seconds from their start to READY."""

    def with_pilot(self, changed: Pilot) -> "PoolState":
        """Put a pilot in the place of the one of its number."""
        pilots = tuple(changed if pilot.number == changed.number else pilot for pilot in self.pilots)
        return replace(self, pilots=pilots)


class Spent(NamedTuple):
    """What jobs that are over have used of a day."""

    day: int
    """Days since 1970-01-01 UTC."""
    node_s: float


class Outcome(NamedTuple):
    """How a pilot ended."""

    at: float
    failed: bool


class ClusterState(Struct, frozen=True):
    """One cluster as it was found."""

    spec: ClusterSpec
    online: bool = True
    reason: str = ""
    """Why it is offline, in words."""
    spent: tuple[Spent, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    """Of the last hour."""


class State(Struct, frozen=True):
    """Everything the plan knows."""

    pools: tuple[PoolState, ...]
    limits: Limits = Limits()
    next_number: int = 1
    stopping: bool = False
    clusters: tuple[ClusterState, ...] = ()
    """Those that are not here have no budget and are online."""

    def pool(self, key: PoolKey) -> PoolState:
        """Find a pool; `LookupError` when there is none of that name."""
        for pool in self.pools:
            if pool.spec.key == key:
                return pool
        raise LookupError(f"no pool {key}")

    def pilot(self, number: int) -> tuple[PoolState, Pilot]:
        """Find a pilot and its pool; `LookupError` when there is none of that number."""
        for pool in self.pools:
            for pilot in pool.pilots:
                if pilot.number == number:
                    return pool, pilot
        raise LookupError(f"no pilot {number}")

    def cluster(self, name: str) -> ClusterState:
        """Find a cluster; one without limits when the deployment says nothing of it."""
        for cluster in self.clusters:
            if cluster.spec.name == name:
                return cluster
        return ClusterState(ClusterSpec(name))

    def with_pool(self, changed: PoolState) -> "State":
        """Put a pool in the place of the one of its name."""
        key = changed.spec.key
        return replace(self, pools=tuple(changed if pool.spec.key == key else pool for pool in self.pools))

    def with_cluster(self, changed: ClusterState) -> "State":
        """Put a cluster in the place of the one of its name, or add it."""
        others = [cluster for cluster in self.clusters if cluster.spec.name != changed.spec.name]
        if len(others) == len(self.clusters):
            return replace(self, clusters=(*self.clusters, changed))
        name = changed.spec.name
        return replace(self, clusters=tuple(changed if one.spec.name == name else one for one in self.clusters))
