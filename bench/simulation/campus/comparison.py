"""All policies on the same requests, each in a process of its own."""

import functools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from campus import report
from campus.simulation import Result, Simulation
from campus.workload import Workload
from campus.world import POLICIES, Policy, Troubles


@dataclass(frozen=True)
class Played:
    """What one policy came to."""

    result: Result
    cpu_s: float


def compare(seed: int, campus: Workload) -> dict[str, Played]:
    """Play every policy, as many at once as there are cores; by name, in their order."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")) as processes:
        played = processes.map(functools.partial(_play, seed=seed, campus=campus), POLICIES)
        return {policy.name: one for policy, one in zip(POLICIES, played, strict=True)}


def _play(policy: Policy, seed: int, campus: Workload) -> Played:
    began = time.process_time()
    result = Simulation(policy, report.clusters_of(seed), campus, Troubles(), seed).run()
    cpu_s = time.process_time() - began
    print(f"{policy.name}: {result.steps:,} steps of the plan, {cpu_s:.1f} s of CPU", file=sys.stderr)
    return Played(result, cpu_s)
