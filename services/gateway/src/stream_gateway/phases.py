"""Where the time to a first token goes: each moment since the request's arrival belongs to one of these.

    auth       who asks, and whether that may be
    read       its body, and understanding it
    judge      the judge's score, and the policy
    summarise  making it fit the model's window
    queue      waiting for a worker that has a place
    network    to the engine: connecting and sending; on a sealed tier until the worker has accepted
    prefill    from there to the engine's first bytes
    retry      what went into candidates that failed

A phase ends when `lap` names it; what was spent since the last one is its.
"""

import time
from typing import Final

_HEADER: Final = "server-timing"
_MS: Final = 1000.0


class Phases:
    """A lap timer for one request, begun when it arrived."""

    __slots__ = ("_last", "began_ns", "laps")

    def __init__(self) -> None:
        self.began_ns = time.time_ns()
        self._last = time.perf_counter()
        self.laps: list[tuple[str, float]] = []
        """(phase, seconds), in their order; a phase may come again."""

    def lap(self, phase: str) -> None:
        """End a phase: all time since the last one was its."""
        now = time.perf_counter()
        self.laps.append((phase, now - self._last))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Sum up the phases, in the order in which they came first."""
        sums: dict[str, float] = {}
        for phase, spent in self.laps:
            sums[phase] = sums.get(phase, 0.0) + spent
        return sums

    def header(self) -> tuple[bytes, bytes]:
        """Write them as a response header, in milliseconds: https://www.w3.org/TR/server-timing/."""
        return _HEADER.encode("ascii"), self.text().encode("ascii")

    def text(self) -> str:
        """Write the header's value."""
        sums = self.seconds()
        parts = {**sums, "total": sum(sums.values())}
        return ", ".join(f"{phase};dur={spent * _MS:.2f}" for phase, spent in parts.items())
