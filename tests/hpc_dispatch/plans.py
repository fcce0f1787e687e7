"""What the tests of the plan share: a pool that has just begun, and events played on it."""

from msgspec.structs import replace

from stream_hpc_dispatch.plan import (
    Announced,
    ClusterSpec,
    ClusterState,
    PoolKey,
    PoolSpec,
    PoolState,
    StartJob,
    State,
    StatusSeen,
    Tick,
    step,
)

KEY = PoolKey("here", "tiny")
SPEC = PoolSpec(KEY, min_ready=1, max_workers=2, walltime_s=3600, start_limit_s=60)
T0 = 1_000.0


def fresh(spec=SPEC, *, hours=None, **changes):
    """A plan that has just seen its first tick; `hours`: node-hours of its cluster's day."""
    cluster = ClusterState(ClusterSpec("here", node_s_per_day=None if hours is None else hours * 3600))
    return step(State((PoolState(replace(spec, **changes)),), clusters=(cluster,)), Tick(T0))


def run(state, *events):
    """All actions of several events, and the state after them."""
    actions = []
    for event in events:
        state, more = step(state, event)
        actions += more
    return state, actions


def pilot(state, number=1):
    """A pilot as it is."""
    return state.pilot(number)[1]


def ready(at, *numbers, **facts):
    """What workers send that answer."""
    return [event for number in numbers for event in (Announced(at, number), StatusSeen(at, number, **facts))]


def started(actions):
    """Numbers of the pilots that were started."""
    return [action.pilot for action in actions if isinstance(action, StartJob)]
