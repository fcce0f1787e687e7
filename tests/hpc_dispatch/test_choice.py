"""Among several clusters: which one is asked for a worker."""

import pytest
from hpc_dispatch.plans import SPEC, T0
from msgspec.structs import replace

from stream_hpc_dispatch.choice import choose
from stream_hpc_dispatch.plan import (
    ClusterSpec,
    ClusterState,
    Phase,
    Pilot,
    PoolKey,
    PoolState,
    Requested,
    State,
    step,
)

SPEC10 = replace(SPEC, min_ready=0, max_workers=1, max_requests=10)
END = T0 + 3600
HOT = Pilot(1, Phase.READY, T0, END, submitted=T0)
FULL = replace(HOT, running=9)
STARTING = Pilot(2, Phase.STARTING, T0, END, submitted=T0)


def two(near, far, near_cluster=None, far_cluster=None):
    """Two clusters with a pool of the same model each: pilots, other facts of the pool, facts of the cluster."""
    pools, clusters = [], []
    for name, (pilots, facts), cluster in (("near", near, near_cluster), ("far", far, far_cluster)):
        pools.append(PoolState(replace(SPEC10, key=PoolKey(name, "tiny")), pilots, **facts))
        known = cluster or {}
        spec = ClusterSpec(name, known.pop("priority", 0))
        clusters.append(ClusterState(spec, **known))
    return State(tuple(pools), clusters=tuple(clusters))


COLD = ((), {})


@pytest.mark.parametrize(
    ("state", "chosen"),
    [
        (two(COLD, COLD), "near"),
        (two(COLD, ((HOT,), {})), "far"),
        (two(COLD, ((STARTING,), {})), "far"),
        (two(((STARTING,), {}), ((HOT,), {})), "far"),
        (two(COLD, COLD, {"online": False}), "far"),
        (two(COLD, COLD, {"online": False}, {"online": False}), "near"),
        (two(((), {"blocked": "budget"}), COLD), "far"),
        (two(((), {"retry_at": T0 + 9}), COLD), "far"),
        (two(((), {"failures": 1}), COLD), "far"),
        (two(COLD, COLD, None, {"priority": 1}), "far"),
        (two(((), {"waits": (60.0,)}), ((), {"waits": (10.0,)})), "far"),
        (two(((FULL,), {}), COLD), "far"),
        (two(((FULL,), {}), ((replace(FULL, number=2),), {})), "near"),
        (two(((FULL,), {}), COLD, None, {"online": False}), "near"),
        (two(((HOT,), {}), COLD, {"online": False}), "far"),
    ],
)
def test_choice(state, chosen):
    """Hot or starting, then online, not failing, higher priority, shorter wait, the file's order; a full one last."""
    assert choose(state, "tiny", T0) == PoolKey(chosen, "tiny")


def test_no_pool_of_that_model():
    """A model that nobody offers is the caller's error."""
    with pytest.raises(LookupError):
        choose(two(COLD, COLD), "huge", T0)


def test_those_who_wait_go_on_to_the_next_cluster_and_stay_there():
    """What is more than the first cluster can take starts a worker on the second; the count holds in one place."""
    state, started = two(((STARTING,), {}), COLD), []
    for second in range(5):
        key = choose(state, "tiny", T0 + second, waiting=20, gateway="a")
        state, actions = step(state, Requested(T0 + second, key, 20, "a", anywhere=True))
        started += actions
        assert key.cluster == "far"
    assert [action.key.cluster for action in started] == ["far"]
    assert [len(pool.asks) for pool in state.pools] == [0, 1]
    state, _ = step(state, Requested(T0 + 5, PoolKey("near", "tiny"), 3, "a", anywhere=True))
    assert [len(pool.asks) for pool in state.pools] == [1, 0]
    state, _ = step(state, Requested(T0 + 5, PoolKey("far", "tiny"), 3, "a"))
    assert [len(pool.asks) for pool in state.pools] == [1, 1]
