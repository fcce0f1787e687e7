"""What the clusters of one tier can do at this moment: pool and deployment in, standings and options out. No I/O."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final, cast

from stream_core.deployment import ClusterConfig, PoolConfig
from stream_gateway.channel import Channel
from stream_gateway.choice import FirstTokens, Option
from stream_gateway.pool import ClusterNews, ModelNews, PooledWorker, PoolWatch
from stream_gateway.standing import Standing, State

_UNREACHED_S: Final = 10.0
"""How long a worker that did not answer comes after the others: hpc_dispatch notices it within this time."""
_FULL_S: Final = 0.5
"""How long a worker that refused as busy is not asked by those who wait."""
_STATES: Final = ("starting", "cold", "offline")

Clock = Callable[[], float]


class Clusters:
    """The clusters of a tier.

    Args:
        clusters: of the deployment.
        channel: knows what this gateway runs where.
        pool: what hpc_dispatch says.
        monotonic: clock of the measurements, seconds.
        wall: clock of hpc_dispatch's estimates, unix seconds.
    """

    def __init__(
        self,
        clusters: list[ClusterConfig],
        channel: Channel,
        pool: PoolWatch,
        *,
        monotonic: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._clusters = {cluster.name: cluster for cluster in clusters}
        self._pools = {(cluster.name, pool.model.id): pool for cluster in clusters for pool in cluster.pools}
        self._channel = channel
        self._pool = pool
        self._monotonic = monotonic
        self._wall = wall
        self._first_tokens = FirstTokens()
        self._unreached: dict[bytes, tuple[float, str]] = {}
        self._full: dict[bytes, float] = {}

    def measured(self, cluster: str, model: str, ms: float) -> None:
        """A request got its first token after so many milliseconds."""
        self._first_tokens.note(cluster, model, ms, self._monotonic())

    def unreached(self, worker: PooledWorker) -> None:
        """A worker did not answer, or was lost."""
        now = self._monotonic()
        self._unreached = {lease_id: seen for lease_id, seen in self._unreached.items() if now - seen[0] < _UNREACHED_S}
        self._unreached[worker.lease_id] = now, worker.cluster

    def refused(self, worker: PooledWorker) -> None:
        """A worker had no place."""
        now = self._monotonic()
        self._full = {lease_id: when for lease_id, when in self._full.items() if now - when < _FULL_S}
        self._full[worker.lease_id] = now

    def workers(self, model: str, allowed: frozenset[str] | None = None) -> Iterator[PooledWorker]:
        """Find the ready workers of a model on these clusters; None: all of the tier."""
        for worker in self._pool.snapshot.workers.values():
            ours = worker.cluster in self._clusters and (allowed is None or worker.cluster in allowed)
            if ours and model in worker.models:
                yield worker

    def announced(self) -> Iterator[PooledWorker]:
        """All ready workers, of any model."""
        return (worker for worker in self._pool.snapshot.workers.values() if worker.cluster in self._clusters)

    def options(self, model: str, allowed: frozenset[str] | None) -> list[Option]:
        """Describe the ready workers of a model on these clusters."""
        now = self._monotonic()
        unreached = {key: name for key, (when, name) in self._unreached.items() if now - when < _UNREACHED_S}
        silent = set(unreached.values())
        news = {name: self._news(name) for name in self._clusters}
        measured = {name: self._first_tokens.of(name, model, now) or 0.0 for name in self._clusters}
        return [
            Option(
                lease_id=worker.lease_id,
                cluster=worker.cluster,
                max_requests=worker.max_requests,
                ours=self._channel.running_on(worker.lease_id),
                running=worker.running,
                waiting=worker.waiting,
                full=now - self._full.get(worker.lease_id, float("-inf")) < _FULL_S,
                unreached=worker.lease_id in unreached,
                cluster_unreached=worker.cluster in silent,
                online=news[worker.cluster].online,
                failure_rate=news[worker.cluster].failure_rate,
                priority=news[worker.cluster].priority,
                # The slower of what its engine says and what this gateway saw of its cluster.
                first_token_ms=max(worker.first_token_ms, measured[worker.cluster]) or None,
            )
            for worker in self.workers(model, allowed)
        ]

    def standings(self, model: str, allowed: frozenset[str] | None = None) -> dict[str, Standing]:
        """Say how a model stands on each of these clusters that offers it; the site's order of priority."""
        names = {name for name, id_ in [*self._pools, *self._pool.snapshot.states] if id_ == model}
        names |= {worker.cluster for worker in self.workers(model)}
        known = [name for name in self._clusters if name in names and (allowed is None or name in allowed)]
        known.sort(key=lambda name: -self._news(name).priority)
        return {name: self._standing(name, model) for name in known}

    def priorities(self) -> dict[str, int]:
        """The sites' priorities, by cluster."""
        return {name: self._news(name).priority for name in self._clusters}

    def _news(self, cluster: str) -> ClusterNews:
        known = self._pool.snapshot.clusters.get(cluster)
        return known or ClusterNews(priority=self._clusters[cluster].priority)

    def _standing(self, cluster: str, model: str) -> Standing:
        workers = list(self.workers(model, frozenset({cluster})))
        news = self._pool.snapshot.states.get((cluster, model))
        config = self._pools.get((cluster, model))
        state, reason = self._state(cluster, news, ready=len(workers))
        now = self._monotonic()
        measured = self._first_tokens.of(cluster, model, now) or 0.0
        firsts = [ms for worker in workers if (ms := max(worker.first_token_ms, measured))]
        away = not workers and not (self._pool.connected and self._news(cluster).online)
        told = news if news is not None and not workers and not away else ModelNews(state)
        return Standing(
            state=state,
            reason=reason,
            ready=len(workers),
            starting=news.starting if news and not away else 0,
            room=_room(config, len(workers), news) if state != "offline" else 0,
            queue_position=told.queue_position or None,
            ready_in_s=max(0.0, told.ready_unix_s - self._wall()) if told.ready_unix_s else None,
            first_token_ms=statistics.median(firsts) if firsts else None,
            cold_start=config.cold_start if config else "wait",
            wait_s=config.cold_wait_s if config else 0.0,
        )

    def _state(self, cluster: str, news: ModelNews | None, *, ready: int) -> tuple[State, str]:
        """Say it in one word, and why. A ready worker goes before what hpc_dispatch says."""
        if not self._channel.connected:
            return "offline", "the broker is away"
        if ready:
            return "hot", news.reason if news and news.state == "hot" else ""
        if not self._pool.connected:
            return "offline", "hpc_dispatch is away"
        if news is None:
            return "offline", "hpc_dispatch runs no such pool"
        if not self._news(cluster).online:
            return "offline", self._news(cluster).reason or news.reason or "its cluster is offline"
        if news.state in _STATES:
            return cast("State", news.state), news.reason
        return "offline", news.reason if news.state == "offline" else "its workers can't be used by this gateway"


def _room(config: PoolConfig | None, ready: int, news: ModelNews | None) -> int:
    return max(0, config.max_workers - ready - (news.starting if news else 0)) if config else 0
