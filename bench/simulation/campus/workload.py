"""Requests of a campus: when they come and how long their answers take. Seeded, the same for every policy."""

from dataclasses import dataclass
from typing import Final

import numpy as np

DAY_S: Final = 86_400.0
START: Final = 4 * DAY_S
"""1970-01-05, a Monday, 00:00 UTC."""
_DIURNAL: Final = (2, 1, 1, 1, 1, 1, 2, 5, 10, 14, 16, 15, 12, 14, 16, 16, 14, 12, 10, 9, 9, 8, 6, 4)
"""Weight of each hour of a day."""
_WEEK: Final = (1.0, 1.05, 1.1, 1.0, 0.85, 0.3, 0.4)
_BURST_SHARE: Final = 0.05
"""Requests that come together: a class that tries what its teacher shows."""
_BURST: Final = 25
_BURST_S: Final = 60.0
_ANSWER_MEDIAN_S: Final = 14.0
_ANSWER_SIGMA: Final = 0.9


@dataclass(frozen=True)
class Workload:
    """All requests, in order."""

    arrivals: list[float]
    """Unix seconds."""
    answers_s: list[float]
    """From first token to last."""
    users: int
    days: int


def generate(seed: int, *, days: int, requests: int, users: int) -> Workload:
    """Draw the requests: Poisson within each hour, a share of them in bursts, lognormal answers."""
    draw = np.random.default_rng(seed)
    weights = np.array([_WEEK[day % 7] * hour for day in range(days) for hour in _DIURNAL], dtype=float)
    bursts = int(requests * _BURST_SHARE / _BURST)
    single = requests - bursts * _BURST
    times = [_in_hours(draw, weights, single)]
    begins = np.repeat(_in_hours(draw, weights, bursts), _BURST)
    times.append(begins + draw.uniform(0, _BURST_S, bursts * _BURST))
    arrivals = np.sort(np.concatenate(times)) + START
    answers = np.minimum(draw.lognormal(np.log(_ANSWER_MEDIAN_S), _ANSWER_SIGMA, requests), 300.0)
    return Workload(arrivals.tolist(), answers.tolist(), users, days)


def _in_hours(draw: np.random.Generator, weights: np.ndarray, count: int) -> np.ndarray:
    hours = draw.choice(len(weights), size=count, p=weights / weights.sum())
    return (hours + draw.random(count)) * 3600.0
