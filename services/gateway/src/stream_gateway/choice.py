"""Which worker gets a request, and which cluster is to start one. Pure: what is known comes in.

Only ready workers are options. The first difference decides:

    1. a place is free                     it runs fewer requests than it may, and refused none just now
    2. it was not out of reach just now    the worker, then its cluster
    3. its cluster is sound                online, and few of its pilots failed in the last hour
    4. load, in quarters                   running requests and those in the engine's queue, against `max_requests`
    5. time to the first token             in powers of two above 100 ms; a cluster that was not measured counts as fast
    6. the site's priority
    7. load, then first token, exactly

Steps 4 and 5 are coarse, so that priority decides between clusters that could answer equally well.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from stream_gateway.standing import Standing

_LOAD_STEPS: Final = 4
_FAST_MS: Final = 100.0
_FAILING: Final = (0.25, 0.5)
"""Shares of failed pilots from which a cluster comes after sounder ones, and after those."""
_WEIGHT: Final = 0.3
"""Of the newest measurement."""
_FORGET_S: Final = 60.0
"""A measurement so old says nothing: a cluster that was slow once is tried again."""


class Option(msgspec.Struct, frozen=True):
    """A ready worker, as far as the choice looks at it; made for every worker at every choice."""

    lease_id: bytes
    cluster: str
    max_requests: int
    ours: int = 0
    """Requests that this gateway runs on it."""
    running: int = 0
    """By its last status."""
    waiting: int = 0
    """Queued in its engine, by its last status."""
    full: bool = False
    """It refused a request a moment ago."""
    unreached: bool = False
    """It did not answer a moment ago."""
    cluster_unreached: bool = False
    """Another worker of its cluster did not."""
    online: bool = True
    failure_rate: float = 0.0
    """Share of its cluster's pilots of the last hour that failed, 0..1."""
    priority: int = 0
    first_token_ms: float | None = None

    @property
    def load(self) -> float:
        """What it runs and what waits in its engine, against what it may run."""
        return (max(self.ours, self.running) + self.waiting) / max(1, self.max_requests)

    @property
    def places(self) -> int:
        """Requests that it would take now."""
        return 0 if self.full else max(0, self.max_requests - max(self.ours, self.running))


def best(options: Iterable[Option]) -> Option | None:
    """Find the worker that should get a request; None without options."""
    return min(options, key=_rank, default=None)


def _rank(option: Option) -> tuple[float, ...]:
    first_token_ms = option.first_token_ms or 0.0
    return (
        option.places == 0,
        option.unreached,
        option.cluster_unreached,
        not option.online,
        sum(option.failure_rate >= share for share in _FAILING),
        int(option.load * _LOAD_STEPS),
        _slowness(first_token_ms),
        -option.priority,
        option.load,
        first_token_ms,
    )


def _slowness(first_token_ms: float) -> int:
    """Count how often 100 ms must be doubled to reach it."""
    return max(0, int(first_token_ms / _FAST_MS).bit_length())


def to_wake(standings: Mapping[str, Standing], priorities: Mapping[str, int]) -> str | None:
    """Choose the cluster that is to start a worker, or one more; None without clusters.

    One where a worker can come; of those one with room; of those one that has a worker on its way, then a hot one,
    then a cold one; the soonest, then the highest priority. An offline one is told too: a request may be what starts
    its next try.

    Args:
        standings: of one model, by cluster.
        priorities: of the sites.
    """
    order = {"starting": 0, "hot": 1, "cold": 2, "offline": 3}

    def rank(name: str) -> tuple[float, ...]:
        standing = standings[name]
        soon = standing.ready_in_s if standing.ready_in_s is not None else float("inf")
        return (not standing.comes, standing.room == 0, order[standing.state], soon, -priorities.get(name, 0))

    return min(standings, key=rank, default=None)


class FirstTokens:
    """What this gateway measured: time from a request to its first token, by cluster and model, averaged with decay."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str], tuple[float, float]] = {}

    def note(self, cluster: str, model: str, ms: float, now: float) -> None:
        """Take a measurement.

        Args:
            cluster: that answered.
            model: likewise.
            ms: milliseconds.
            now: seconds of a monotonic clock.
        """
        before = self.of(cluster, model, now)
        self._measured[cluster, model] = (ms if before is None else before + _WEIGHT * (ms - before), now)

    def of(self, cluster: str, model: str, now: float) -> float | None:
        """Tell the average in milliseconds; None without a measurement of late."""
        ms, when = self._measured.get((cluster, model), (0.0, float("-inf")))
        return ms if now - when < _FORGET_S else None
