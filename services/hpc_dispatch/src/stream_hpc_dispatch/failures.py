"""What failed, how often, and when the next try may be. Pure.

A failure sets the pool's `retry_at` to 0.5 s, 1 s, 2 s .. 60 s from now, `retry_after_s` from the `max_failures`-th in
a row on. Those of one burst, before the next try was due, count as one. READY resets that, and so does a cluster that
is back.
"""

from typing import Final

from msgspec.structs import replace

from stream_hpc_dispatch.events import Action, ReportFailure
from stream_hpc_dispatch.states import ClusterState, Limits, Outcome, Pilot, PoolState, State

_MAX_DOUBLINGS: Final = 32
_REMEMBERED_S: Final = 3600.0
_MOST_OUTCOMES: Final = 256


def fail(pool: PoolState, pilot: Pilot, limits: Limits, now: float, reason: str, actions: list[Action]) -> PoolState:
    """Count a pilot's failure."""
    failures = pool.failures + 1 if now >= pool.retry_at else max(pool.failures, 1)
    delay_s = min(limits.backoff_last_s, limits.backoff_first_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))
    if failures >= pool.spec.max_failures:
        delay_s = max(delay_s, pool.spec.retry_after_s)
    retry_at = max(pool.retry_at, now + delay_s)
    actions.append(ReportFailure(pilot.number, pool.spec.key, reason, failures, retry_at - now))
    return replace(pool, failures=failures, retry_at=retry_at, reason=reason, requested=False)


def forgive(pool: PoolState) -> PoolState:
    """Begin anew: nothing stands against the next try."""
    return replace(pool, failures=0, retry_at=0.0, reason="")


def note_end(cluster: ClusterState, now: float, *, failed: bool) -> ClusterState:
    """Remember how a pilot ended."""
    return replace(cluster, outcomes=(*cluster.outcomes, Outcome(now, failed))[-_MOST_OUTCOMES:])


def forget_old(cluster: ClusterState, now: float) -> ClusterState:
    """Drop what is an hour old."""
    if all(now - outcome.at < _REMEMBERED_S for outcome in cluster.outcomes):
        return cluster
    return replace(cluster, outcomes=tuple(outcome for outcome in cluster.outcomes if now - outcome.at < _REMEMBERED_S))


def rate(state: State, name: str) -> float:
    """Share of a cluster's pilots of the last hour, those that are there included, that failed: 0..1."""
    outcomes = state.cluster(name).outcomes
    failed = sum(outcome.failed for outcome in outcomes)
    there = sum(len(pool.pilots) for pool in state.pools if pool.spec.key.cluster == name)
    return failed / (len(outcomes) + there) if failed else 0.0
