"""A cluster's node time per day, a hard limit by reservation. Pure.

    a job's charge  = nodes x [`ran_from`, its lease's end + `expiry_grace_s` + `ending_s`], split at 00:00 UTC; one
                      that goes on even then is charged until now
    when it ended   = nodes x [`ran_from`, its end], kept in the cluster's `spent`
    left of a day   = limit - spent - charges of the jobs that have not ended
    a new lease     = as far as every day that it touches has room

What a job spends in the queue is not charged: `ran_from` moves on with each look at it.
"""

from typing import Final

from msgspec.structs import replace

from stream_hpc_dispatch.states import ClusterState, Limits, Pilot, PoolState, Spent, State

DAY_S: Final = 86_400.0


def day_of(now: float) -> int:
    """Number the days, from 1970-01-01 UTC."""
    return int(now // DAY_S)


def left_s(state: State, name: str, day: int, now: float) -> float | None:
    """Node-seconds that a cluster's budget has left on a day; None: there is no limit. Below 0: a job overran."""
    cluster = state.cluster(name)
    if cluster.spec.node_s_per_day is None:
        return None
    charged_s = sum(
        pool.spec.nodes * overlap_s(pilot.ran_from, charged_until(pilot, state.limits, now), day)
        for pool in state.pools
        if pool.spec.key.cluster == name
        for pilot in pool.pilots
    )
    return cluster.spec.node_s_per_day - spent_s(cluster, day) - charged_s


def charged_until(pilot: Pilot, limits: Limits, now: float) -> float:
    """Until when the budget pays for a job that has not ended."""
    return max(pilot.expires + limits.expiry_grace_s + limits.ending_s, now)


def lease_end(state: State, pool: PoolState, now: float) -> float:
    """How far a lease may go that starts now: its walltime, or as far as the budget reaches; before now: nowhere."""
    overhang_s = state.limits.expiry_grace_s + state.limits.ending_s
    wanted = now + pool.spec.walltime_s + overhang_s
    reached = now
    while reached < wanted:
        day = day_of(reached)
        room_s = left_s(state, pool.spec.key.cluster, day, now)
        if room_s is None:
            return now + pool.spec.walltime_s
        midnight = (day + 1) * DAY_S
        if reached + room_s / pool.spec.nodes < midnight:
            reached += room_s / pool.spec.nodes
            break
        reached = midnight
    return now + pool.spec.walltime_s if reached >= wanted else reached - overhang_s


def spend(cluster: ClusterState, pilot: Pilot, nodes: int, now: float) -> ClusterState:
    """Keep what a job that has ended used of today; earlier days are closed."""
    today = day_of(now)
    node_s = spent_s(cluster, today) + nodes * overlap_s(pilot.ran_from, now, today)
    return replace(cluster, spent=(Spent(today, node_s),))


def spent_s(cluster: ClusterState, day: int) -> float:
    """Node-seconds that jobs which are over have used of a day."""
    return sum(spent.node_s for spent in cluster.spent if spent.day == day)


def overlap_s(start: float, end: float, day: int) -> float:
    """Seconds of a day that lie between two times."""
    return max(0.0, min(end, (day + 1) * DAY_S) - max(start, day * DAY_S))
