"""What the judge counts, for Prometheus: calls, how long they take, how scores are spread and how they move."""

from collections.abc import Sequence
from typing import Final

from stream_core.metrics import FINE_SECONDS, SHARES, Counter, Gauge, Histogram, describe_process
from stream_judge import VERSION
from stream_judge.classify import Verdict
from stream_judge.drift import Drift

_SCORED: Final = Counter("stream_judge_requests_total", "Requests that were scored.", ("level", "backend", "cached"))
_SECONDS: Final = Histogram("stream_judge_seconds", "What a score took.", bounds=FINE_SECONDS)
_SCORES: Final = Histogram("stream_judge_score", "Probability of a good answer, by tier.", ("tier",), SHARES)
_MOST_TIERS: Final = 32
"""Tiers of which scores are kept: their names come from gateways, and a deployment has a handful."""


class Meters:
    """The judge's numbers."""

    def __init__(self) -> None:
        self._drift: dict[str, Drift] = {}
        describe_process("judge", VERSION)
        words = "How far the last scores are from the usual ones; above 0.25 look at what is asked."
        Gauge("stream_judge_drift", words, self._index, ("tier",))

    def note(self, tiers: Sequence[str], verdict: Verdict, took_s: float) -> None:
        """Count one score.

        Args:
            tiers: that were scored.
            verdict: what was said.
            took_s: seconds.
        """
        _SCORED.add(1, verdict.score.level.name, verdict.backend, str(verdict.cached).lower())
        _SECONDS.of().observe(took_s)
        for tier, probability in zip(tiers, verdict.score.probabilities, strict=True):
            if tier not in self._drift and len(self._drift) >= _MOST_TIERS:
                continue
            _SCORES.of(tier).observe(probability)
            self._drift.setdefault(tier, Drift()).note(probability)

    def _index(self) -> dict[tuple[str, ...], float]:
        return {(tier,): round(drift.index, 4) for tier, drift in self._drift.items()}
