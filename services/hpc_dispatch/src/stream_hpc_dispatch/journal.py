"""What the plan must not forget when this program is killed: today's node time, and what was measured. Pure.

It lies in a file of `state_dir`, not in the leases' bucket: the budget is a hard limit also without JetStream, and the
jobs whose time it counts are no more, so no lease is left to carry it.

    spent      what jobs that are over have used of a day
    charges    jobs that had not ended: cluster, nodes, from, until. Read back, their time until then counts as spent:
               one that still runs is adopted and charged from then on, one that is gone ended in between
"""

import msgspec
from msgspec.structs import replace

from stream_core.errors import ConfigError
from stream_hpc_dispatch import budget
from stream_hpc_dispatch.states import PoolKey, Spent, State


class Charge(msgspec.Struct, frozen=True):
    """A job that had not ended when the journal was written."""

    cluster: str
    nodes: int
    start: float  # unix seconds
    until: float


class Measured(msgspec.Struct, frozen=True):
    """What a pool's last jobs took, in seconds."""

    cluster: str
    model: str
    waits: list[float]
    startups: list[float]


class Journal(msgspec.Struct, frozen=True):
    """The whole file."""

    version: int = 1
    spent: dict[str, list[tuple[int, float]]] = {}
    charges: list[Charge] = []
    measured: list[Measured] = []


def write(state: State) -> bytes:
    """Write down what another run must know; the same state gives the same bytes."""
    limits = state.limits
    journal = Journal(
        spent={cluster.spec.name: [(day, node_s) for day, node_s in cluster.spent] for cluster in state.clusters},
        charges=[
            Charge(pool.spec.key.cluster, pool.spec.nodes, pilot.ran_from, budget.charged_until(pilot, limits, 0.0))
            for pool in state.pools
            for pilot in pool.pilots
        ],
        measured=[
            Measured(pool.spec.key.cluster, pool.spec.key.model, list(pool.waits), list(pool.startups))
            for pool in state.pools
            if pool.waits or pool.startups
        ],
    )
    return msgspec.json.encode(journal)


def read(written: bytes, state: State, now: float) -> State:
    """Go on from what an earlier run wrote.

    Args:
        written: the file.
        state: as it begins, before anything was adopted.
        now: unix seconds.

    Raises:
        ConfigError: it is no journal of this version; what was spent is not known.
    """
    try:
        journal = msgspec.json.decode(written, type=Journal)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the plan's journal can't be read: {error}", param="state_dir") from error
    if journal.version != 1:
        raise ConfigError(f"the plan's journal has version {journal.version}, known is 1", param="state_dir")
    for cluster in state.clusters:
        name, today = cluster.spec.name, budget.day_of(now)
        node_s = sum(spent_s for day, spent_s in journal.spent.get(name, []) if day == today)
        for charge in journal.charges:
            if charge.cluster == name:
                node_s += charge.nodes * budget.overlap_s(charge.start, min(charge.until, now), today)
        state = state.with_cluster(replace(cluster, spent=(Spent(today, node_s),) if node_s else ()))
    measured = {PoolKey(one.cluster, one.model): one for one in journal.measured}
    for pool in state.pools:
        if one := measured.get(pool.spec.key):
            state = state.with_pool(replace(pool, waits=tuple(one.waits), startups=tuple(one.startups)))
    return state
