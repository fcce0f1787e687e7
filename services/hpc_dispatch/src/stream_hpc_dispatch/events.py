"""What the plan is told, and what it has done: events in, actions out."""

from msgspec import Struct

from stream_hpc_dispatch.states import Phase, PoolKey


class Tick(Struct, frozen=True):
    """Time went by. `listening`: the broker is connected, so that a worker's silence means something."""

    now: float
    listening: bool = True


class Adoptee(Struct, frozen=True):
    """A pilot that an earlier run of this program started; its job runs."""

    pilot: int
    key: PoolKey
    expires: float
    phase: Phase
    announced: bool
    wanted: bool = True
    """Whether it serves what its pool is to serve, and was not being stopped."""
    ran_from: float | None = None
    """From when on the budget is to be charged for it; None: from now on, what was before is in `spent` already."""


class Adopted(Struct, frozen=True):
    """All pilots of an earlier run, at once, so that nothing is started for what is there."""

    now: float
    pilots: tuple[Adoptee, ...]


class Announced(Struct, frozen=True):
    """A pilot proved its key. `restarted`: another key than before, so another process under the same lease."""

    now: float
    pilot: int
    restarted: bool = False


class StatusSeen(Struct, frozen=True):
    """A pilot's heartbeat."""

    now: float
    pilot: int
    engine_ready: bool = True
    draining: bool = False
    running: int = 0
    note: str = ""
    failed: str = ""
    """Why it is about to end before its time."""
    waiting: int = 0
    cache_use: float | None = None
    first_token_ms: float | None = None
    served: int = 0


class JobSeen(Struct, frozen=True):
    """Where a pilot's job stands on its cluster, while its worker has not spoken."""

    now: float
    pilot: int
    queued: bool
    position: int | None = None
    starts: float | None = None
    words: str = ""


class ClusterSeen(Struct, frozen=True):
    """Whether a cluster takes jobs."""

    now: float
    cluster: str
    online: bool
    reason: str = ""


class JobEnded(Struct, frozen=True):
    """A pilot's job is over."""

    now: float
    pilot: int
    exit_code: int | None
    """None: not known."""
    tail: str = ""
    """The end of its log; of one that never started, why."""
    started: bool = True
    reason: str = ""
    """The cluster's own words for its end."""


class Requested(Struct, frozen=True):
    """A gateway wants a worker of a pool that has none, or too few."""

    now: float
    key: PoolKey
    waiting: int = 0
    """Requests of that gateway that wait now; its newest count replaces the one before."""
    gateway: str = ""
    anywhere: bool = False
    """Any cluster would do for them: the count holds for this pool alone, until another one is chosen."""


class StopRequested(Struct, frozen=True):
    """This program ends: no new job, every job stopped."""

    now: float


Event = Tick | Adopted | Announced | StatusSeen | JobSeen | ClusterSeen | JobEnded | Requested | StopRequested


class StartJob(Struct, frozen=True):
    """Start a job for this pilot; its end is always told by `JobEnded`."""

    pilot: int
    key: PoolKey
    expires: float
    """End of its lease; its job's walltime goes no further."""


class StopJob(Struct, frozen=True):
    """Stop this pilot's job; sent once, and `JobEnded` follows."""

    pilot: int


class ReportFailure(Struct, frozen=True):
    """Tell the operator: a pilot failed, why, the how-manieth in a row it is, and when the next try may start."""

    pilot: int
    key: PoolKey
    reason: str
    failures: int
    retry_in_s: float


Action = StartJob | StopJob | ReportFailure
