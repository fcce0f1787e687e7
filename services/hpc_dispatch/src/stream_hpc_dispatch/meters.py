"""What hpc_dispatch tells Prometheus: the plan's state as it is, read when somebody asks; nothing while others lead."""

import statistics
from collections.abc import Callable, Iterable
from typing import Final

from stream_core.metrics import Gauge, Labels, describe_process, single
from stream_hpc_dispatch import VERSION
from stream_hpc_dispatch.dispatch import Dispatch
from stream_hpc_dispatch.states import Phase, Pilot, PoolState, State

_POOL: Final = ("cluster", "model")
_STATES: Final = ("queued", "starting", "ready", "draining", "lost")
_NOTHING: Final = State(())


class Meters:
    """The numbers of this replica."""

    def __init__(self) -> None:
        self._dispatch: Dispatch | None = None
        describe_process("hpc_dispatch", VERSION)
        Gauge("stream_dispatch_leads", "Whether this replica leads.", single(lambda: self._dispatch is not None))
        Gauge("stream_pilots", "Pilot jobs by state.", self._pilots, (*_POOL, "state"))
        for name, words, value in _OF_POOLS:
            kind = "counter" if name.endswith("_total") else "gauge"
            Gauge(name, words, self._each(value), _POOL, kind=kind)
        Gauge("stream_cluster_online", "Whether a cluster can be reached.", self._clusters, ("cluster",))

    def show(self, dispatch: Dispatch | None) -> None:
        """Tell of this one from now on; None: this replica does not lead any more."""
        self._dispatch = dispatch

    @property
    def _state(self) -> State:
        return _NOTHING if self._dispatch is None else self._dispatch.state

    def _each(self, value: Callable[[PoolState], float]) -> Callable[[], dict[Labels, float]]:
        return lambda: {tuple(pool.spec.key): value(pool) for pool in self._state.pools}

    def _pilots(self) -> dict[Labels, float]:
        counts: dict[Labels, float] = {}
        for pool in self._state.pools:
            for state in _STATES:
                counts[*pool.spec.key, state] = sum(_state_of(pilot) == state for pilot in pool.pilots)
        return counts

    def _clusters(self) -> dict[Labels, float]:
        return {(cluster.spec.name,): float(cluster.online) for cluster in self._state.clusters}


def _state_of(pilot: Pilot) -> str:
    if pilot.phase is Phase.STARTING and pilot.queued:
        return "queued"
    return "draining" if pilot.stopping and pilot.phase is Phase.READY else pilot.phase.value


def _median(values: Iterable[float | None]) -> float:
    """0 where nothing is known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else 0.0


_OF_POOLS: Final[tuple[tuple[str, str, Callable[[PoolState], float]], ...]] = (
    ("stream_pool_running_requests", "Requests that workers have.", lambda pool: sum(p.running for p in pool.pilots)),
    ("stream_pool_queued_requests", "Requests that engines queue.", lambda pool: sum(p.waiting for p in pool.pilots)),
    ("stream_pool_waiting_requests", "Requests that gateways hold.", lambda pool: sum(a.waiting for a in pool.asks)),
    ("stream_pool_served_total", "Requests that workers began.", lambda pool: pool.begun),
    ("stream_pool_failed_starts", "Failed starts in a row.", lambda pool: pool.failures),
    ("stream_pool_blocked", "Whether something keeps workers from being started.", lambda pool: bool(pool.blocked)),
    (
        "stream_pool_queue_wait_seconds",
        "Median wait of pilots in the cluster's queue.",
        lambda pool: _median(pool.waits),
    ),
    ("stream_pool_startup_seconds", "Median time of pilots to READY.", lambda pool: _median(pool.startups)),
    (
        "stream_pool_first_token_seconds",
        "Median of the engines' own first tokens.",
        lambda pool: _median(p.first_token_ms for p in pool.pilots) / 1000,
    ),
    (
        "stream_pool_cache_use",
        "Share of key-value cache in use, the fullest engine's.",
        lambda pool: max((p.cache_use or 0.0 for p in pool.pilots), default=0.0),
    ),
)
