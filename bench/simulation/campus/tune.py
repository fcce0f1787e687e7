"""`python -m campus.tune` (in bench/simulation): the planner's defaults beside other values, on seeds kept apart."""

import dataclasses
import statistics
from typing import Final

from campus import workload
from campus.report import clusters_of, figures
from campus.simulation import Simulation
from campus.world import STREAM, Troubles

SEEDS: Final = (101, 102)
DAYS: Final = 2
PER_DAY: Final = 36_000
VALUES: Final = [(idle_s, load) for load in (0.75, 0.6, 0.9) for idle_s in (900.0, 300.0, 2700.0)]


def main() -> None:
    """Print a line for each pair of values."""
    print(f"{'idle s':>7}{'load':>6}{'hot':>9}{'p95 s':>8}{'hours':>8}{'jobs':>6}{'refused':>9}")
    for idle_s, load in VALUES:
        policy = dataclasses.replace(STREAM, idle_timeout_s=idle_s, target_load=load)
        rows = []
        for seed in SEEDS:
            requests = workload.generate(seed, days=DAYS, requests=DAYS * PER_DAY, users=20_000)
            rows.append(figures(Simulation(policy, clusters_of(seed), requests, Troubles(), seed).run()))
        mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        print(
            f"{idle_s:7g}{load:6.2f}{mean['hot_hit']:9.4f}{mean['first_token_p95_s']:8.2f}{mean['gpu_hours']:8.0f}"
            f"{mean['jobs']:6.0f}{mean['refused']:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
