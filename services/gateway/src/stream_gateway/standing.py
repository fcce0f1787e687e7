"""How a model stands: hot, starting, cold or offline, on one cluster and over several. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

State = Literal["hot", "starting", "cold", "offline"]
"""Answers now; a worker is on its way; a request starts one; nobody can answer, and no request changes that."""
_ORDER: Final[tuple[State, ...]] = ("hot", "starting", "cold", "offline")
_MINUTES_FROM_S: Final = 120.0
_LONGEST_REASON: Final = 160
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Standing:
    """One model at one place, or over several."""

    state: State
    reason: str = ""
    """In words; of a hot one mostly empty."""
    ready: int = 0
    """Workers that take requests."""
    starting: int = 0
    """Workers on their way, those in a queue included."""
    room: int = 0
    """Workers that may be there besides those."""
    queue_position: int | None = None
    """Of the first worker's job in the batch system's queue, from 1; None: it is not queued, or not known."""
    ready_in_s: float | None = None
    """Estimate of when a worker will be ready; None: not known, or hot."""
    first_token_ms: float | None = None
    """From a request to its first token, as measured lately; None: not measured."""
    cold_start: Literal["wait", "next"] = "wait"
    """What `auto` does while no worker is ready."""
    wait_s: float = 0.0
    """How long a request waits for a worker."""

    @property
    def hot(self) -> bool:
        """Whether it answers now."""
        return self.state == "hot"

    @property
    def awaited(self) -> bool:
        """Whether `auto` asks it: it answers now, or requests are to wait until it does."""
        return self.hot or (self.comes and self.cold_start == "wait")

    @property
    def comes(self) -> bool:
        """Whether a worker, or one more, becomes ready, by itself or when it is asked for."""
        if self.state == "offline":
            return self.starting > 0 or self.ready_in_s is not None
        return self.starting > 0 or self.room > 0 or self.state == "starting"


def overall(standings: Mapping[str, Standing]) -> Standing:
    """Sum up how a model stands on several clusters.

    The best state counts. It waits where one of those that may wake says "wait", as long as the most patient does.

    Args:
        standings: by cluster.
    """
    if len(standings) == 1:
        return next(iter(standings.values()))
    if not standings:
        return Standing("offline", "no cluster offers it")
    several = standings.values()
    state = min((standing.state for standing in several), key=_ORDER.index)
    best = [standing for standing in several if standing.state == state]
    waking = [standing for standing in several if standing.comes] or list(several)
    reasons = [f"{name}: {standing.reason}" for name, standing in standings.items() if standing.reason]
    return Standing(
        state=state,
        reason="" if state == "hot" else "; ".join(reasons),
        ready=sum(standing.ready for standing in several),
        starting=sum(standing.starting for standing in several),
        room=sum(standing.room for standing in several if standing.state != "offline"),
        queue_position=_least(standing.queue_position for standing in best),
        ready_in_s=_least(standing.ready_in_s for standing in (best if state != "offline" else several)),
        first_token_ms=_least(standing.first_token_ms for standing in best),
        cold_start="wait" if any(standing.cold_start == "wait" for standing in waking) else "next",
        wait_s=max(standing.wait_s for standing in waking),
    )


def in_words(standing: Standing) -> str:
    """Say what a request waits for: "queued, position 3, about 40 s"."""
    words = {"hot": "all workers are busy", "cold": "asked for"}.get(standing.state, standing.state)
    if standing.queue_position is not None and not standing.hot:
        words = f"queued, position {standing.queue_position}"
    if standing.ready_in_s is not None and not standing.hot:
        words += f", about {_span(standing.ready_in_s)}"
    if standing.reason and not standing.hot:
        words += f" ({' '.join(standing.reason.split())[:_LONGEST_REASON]})"
    return words


def _span(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:.0f} min"


def _least(values: Iterable[_Number | None]) -> _Number | None:
    return min((value for value in values if value is not None), default=None)
