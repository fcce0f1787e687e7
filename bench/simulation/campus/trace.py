"""Queue waits of a batch system, made up: a body that most jobs see, a tail that some do, longer in office hours.

    python -m campus.trace FILE [SEED]      (in bench/simulation) writes it: "hour of the week,wait in seconds" a line

wait = busy(hour) x (lognormal of median 60 s and sigma 1.2; for one job in twelve a Pareto tail of 20 minutes times
U^(-1/1.5), at most 6 hours); busy is 1.6 on weekdays from 9 to 18, else 0.7. No foreign data.
"""

import random
import sys
from pathlib import Path
from typing import Final

HOURS: Final = 168
PER_HOUR: Final = 40
_TAIL_SHARE: Final = 1 / 12
_MOST_S: Final = 6 * 3600.0

Trace = list[list[float]]
"""For each hour of the week, from Thursday 00:00 UTC as unix time counts, the waits seen in it."""


def generate(seed: int) -> Trace:
    """Make a trace up."""
    draw = random.Random(f"trace/{seed}")  # noqa: S311  (a simulation)
    return [[_wait_s(draw, hour) for _ in range(PER_HOUR)] for hour in range(HOURS)]


def _wait_s(draw: random.Random, hour: int) -> float:
    day = (hour // 24 + 3) % 7  # 1970-01-01 was a Thursday
    busy = 1.6 if day < 5 and 9 <= hour % 24 < 18 else 0.7
    if draw.random() < _TAIL_SHARE:
        return min(_MOST_S, busy * 1200.0 * draw.random() ** (-1 / 1.5))
    return min(_MOST_S, busy * draw.lognormvariate(4.1, 1.2))


def read(file: Path) -> Trace:
    """Read a trace of one's own cluster, or a written one."""
    trace: Trace = [[] for _ in range(HOURS)]
    for line in file.read_text(encoding="utf-8").splitlines():
        hour, wait_s = line.split(",")
        trace[int(hour)].append(float(wait_s))
    return trace


def write(trace: Trace, file: Path) -> None:
    """Write a trace."""
    lines = [f"{hour},{wait_s:.1f}" for hour, waits in enumerate(trace) for wait_s in waits]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(generate(int(sys.argv[2]) if len(sys.argv) > 2 else 1), Path(sys.argv[1]))
