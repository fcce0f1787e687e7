"""`make bench-capacity`: what a token, a wake-up and a request cost each part, and whether that predicts a load.

Real processes on one machine, paced streams of 40 tokens a second. What comes while a part is busy is done with its
next wake-up, so a part's work is `stream_cli.capacity.queueing`'s: a cost for a wake-up, one for a token, one for a
request. They are fitted to two sizes with one worker and to short answers, then held against three other sizes with
three workers; how many messages there were, the broker tells. CPU is what the operating system counted for each
process, so other work on the machine disturbs it little. Prints tables and, as its last line, the JSON that
`stream capacity --costs` reads.
"""

import asyncio
import contextlib
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from pool_costs import pool_costs

from stream_cli.capacity.queueing import busy
from stream_core.testing.road import Road, run_road, wait_hot

PARTS = ("gateway", "relay", "nats", "worker")
_TICKS = 1000.0
_GRID_US = [1.07**step for step in range(-10, 95)]
"""Costs that are tried: 0.5 to 570 microseconds."""
TOKENS_PER_S = 40
TOKENS = 200
SHORT_TOKENS = 1
FITTED = (8, 96)
CHECKED = (24, 60, 150)
WORKERS = 3
ROUNDS = 3
IDLE_S = 4.0
FRAME_OVERHEAD = 48 + 16 + 4
"""Bytes that a token alone in its frame gets: header, tag, length."""


def processes(road: Road) -> dict[str, list[psutil.Process]]:
    """The processes of each part."""
    found: dict[str, list[psutil.Process]] = {name: [] for name in PARTS}
    for name, pid in road.pids().items():
        for part in PARTS:
            if name.startswith(part):
                found[part].append(psutil.Process(pid))
    if not all(found.values()):
        raise RuntimeError(f"parts without a process: {[part for part, own in found.items() if not own]}")
    return found


def spent(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """CPU seconds of each part so far."""
    return {part: sum(sum(process.cpu_times()[:2]) for process in own) for part, own in parts.items()}


def memory_mib(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Resident memory of each part now."""
    return {part: sum(process.memory_info().rss for process in own) / 2**20 for part, own in parts.items()}


def run(
    road: Road, parts: dict[str, list[psutil.Process]], *, streams: int, tokens: int, requests: int
) -> dict[str, Any]:
    """Put on one load: CPU seconds of each part, memory while it runs, tokens and requests."""
    interval_ms = 1000 / TOKENS_PER_S if tokens > 1 else 0
    script = {"tokens": tokens, "interval_ms": interval_ms}
    body = {"model": "hpc", "stream": True, "messages": [{"role": "user", "content": "hi"}], "script": script}
    job = {
        "url": f"{road.gateway_url}/v1/chat/completions",
        "key": road.api_key,
        "body": body,
        "clients": streams,
        "requests": requests,
        "spread_s": 1.0 if tokens > 1 else 0.0,
    }
    before, messages, began = spent(parts), messages_in(road), time.monotonic()
    load = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("load.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with load:
        if load.stdin is None or load.stdout is None:
            raise RuntimeError("no pipes")
        load.stdin.write(json.dumps(job))
        load.stdin.close()
        time.sleep(tokens / TOKENS_PER_S / 2)  # in the middle of it, when every stream is open
        memory = memory_mib(parts)
        result = json.loads(load.stdout.read())
    if result["incomplete"]:
        raise RuntimeError(f"{result['incomplete']} answers were not complete")
    after = spent(parts)
    return {
        "cpu_s": {part: after[part] - before[part] for part in PARTS},
        "memory_mib": memory,
        "messages": messages_in(road) - messages,
        "tokens": result["events"],
        "requests": streams * requests,
        "elapsed_s": time.monotonic() - began,
    }


def idle_cores(parts: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """What each part uses when nothing happens."""
    before = spent(parts)
    time.sleep(IDLE_S)
    after = spent(parts)
    return {part: (after[part] - before[part]) / IDLE_S for part in PARTS}


@contextlib.contextmanager
def the_road(*, workers: int) -> Iterator[tuple[Road, dict[str, list[psutil.Process]]]]:
    """Run all parts, warm."""
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as folder, run_road(Path(folder), workers=workers) as road:
        asyncio.run(wait_hot(road, workers=workers))
        parts = processes(road)
        run(road, parts, streams=8, tokens=20, requests=2)
        yield road, parts


def messages_in(road: Road) -> int:
    """What the broker has been sent so far."""
    with urllib.request.urlopen(f"{road.brokers[0].monitor_url}/varz", timeout=5) as answer:  # noqa: S310  (our own)
        return int(json.load(answer)["in_msgs"])


def busy_of(run: dict[str, Any], us: dict[str, float]) -> float:
    """Cores that a part should be using in a run."""
    messages, tokens, requests = (run[unit] / run["elapsed_s"] for unit in ("messages", "tokens", "requests"))
    # The engine here is one process whose timers tick once a millisecond: of all streams, what comes in one tick comes
    # together. The messages of a request's begin are in its own cost.
    messages = _TICKS * (1 - math.exp(-messages / _TICKS))
    return busy(messages, tokens / messages, us["wakeup"], us["token"]) + requests * us["request"] / 1e6


def squared_error(part: str, idle: float, runs: list[dict[str, Any]], us: dict[str, float]) -> float:
    """How far costs are from what was measured, relative, over all runs."""
    return sum(((busy_of(run, us) + idle) * run["elapsed_s"] / run["cpu_s"][part] - 1) ** 2 for run in runs)


def fit(idle: dict[str, float], short: list[dict[str, Any]], paced: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Costs of each part: microseconds a request, a wake-up and a token; idle cores, memory."""
    costs: dict[str, Any] = {}
    for part in PARTS:
        request = statistics.median(
            (run["cpu_s"][part] - idle[part] * run["elapsed_s"]) * 1e6 / run["requests"] for run in short
        )
        runs = [run for size in FITTED for run in paced[size]]
        tried = (
            {"wakeup": wakeup, "token": token, "request": request}
            for wakeup, token in itertools.product(_GRID_US, _GRID_US)
        )
        us = min(tried, key=partial(squared_error, part, idle[part], runs))
        few, many = (statistics.median(run["memory_mib"][part] for run in paced[size]) for size in FITTED)
        kib = max(0.0, (many - few) * 1024 / (FITTED[1] - FITTED[0]))
        costs[part] = {
            "us_per_request": round(request, 1),
            "us_per_wakeup": round(us["wakeup"], 1),
            "us_per_token": round(us["token"], 1),
            "idle_cores": round(idle[part], 4),
            "base_mib": round(few - kib * FITTED[0] / 1024, 1),
            "kib_per_stream": round(kib, 1),
        }
    return costs


def check(costs: dict[str, Any], runs: list[dict[str, Any]], streams: int) -> dict[str, Any]:
    """Predicted and measured cores of each part at one size; of all its workers."""
    rows = {}
    for part in PARTS:
        us = {unit: costs[part][f"us_per_{unit}"] for unit in ("wakeup", "token", "request")}
        each = WORKERS if part == "worker" else 1

        shares = [{unit: run[unit] / each for unit in ("messages", "tokens", "requests")} for run in runs]
        told = statistics.median(
            each * (busy_of(run | share, us) + costs[part]["idle_cores"])
            for run, share in zip(runs, shares, strict=True)
        )
        measured = statistics.median(run["cpu_s"][part] / run["elapsed_s"] for run in runs)
        rows[part] = {
            "predicted": round(told, 4),
            "measured": round(measured, 4),
            "error": round(told / measured - 1, 3),
        }
    together = statistics.median(run["tokens"] / run["messages"] for run in runs)
    return {"streams": streams, "tokens_per_message": round(together, 2), "cores": rows}


def machine() -> str:
    """What it was measured on, in words."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model or platform.machine()}, Python {platform.python_version()}"


def main() -> None:
    """Measure, print tables, then the JSON line."""
    short: list[dict[str, Any]] = []
    fitted: dict[int, list[dict[str, Any]]] = {size: [] for size in FITTED}
    with the_road(workers=1) as (road, parts):
        idle = idle_cores(parts)
        for _ in range(ROUNDS):
            short.append(run(road, parts, streams=4, tokens=SHORT_TOKENS, requests=100))
            for size, runs in fitted.items():
                runs.append(run(road, parts, streams=size, tokens=TOKENS, requests=1))
    checked: dict[int, list[dict[str, Any]]] = {size: [] for size in CHECKED}
    with the_road(workers=WORKERS) as (road, parts):
        for _ in range(ROUNDS):
            for size, runs in checked.items():
                runs.append(run(road, parts, streams=size, tokens=TOKENS, requests=1))
    costs = fit(idle, short, fitted)
    checks = [check(costs, checked[size], size) for size in CHECKED]
    event = (
        len(b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n') + 70
    )
    pool = pool_costs()
    names = ("us_per_request", "us_per_wakeup", "us_per_token", "idle_cores", "base_mib", "kib_per_stream")
    print(" ".join(["      part", *(f"{name:>14}" for name in names)]))
    for part, cost in costs.items():
        print(" ".join([f"{part:>10}", *(f"{cost[name]:>14}" for name in names)]))
    print(f"\n{'streams':>8} {'part':>10} {'predicted':>10} {'measured':>9} {'error':>7}   (cores)")
    for row in checks:
        for part, cores in row["cores"].items():
            print(
                f"{row['streams']:>8} {part:>10} {cores['predicted']:>10} {cores['measured']:>9} {cores['error']:>7.1%}"
            )
    print(f"\nthe pool: {pool}")
    result = {
        "machine": machine(),
        "parts": costs,
        "pool": pool,
        "event_bytes": event,
        "sealed_bytes": event + FRAME_OVERHEAD,
        "checks": checks,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
