"""`make bench-dataplane`: what the sealed HPC road adds to calling the engine directly.

Real processes on one machine: gateway, NATS, relay, worker, hpc_dispatch, and a scripted engine. Direct and HPC runs
take turns, so that a machine that slows down slows both. Prints a table and, as its last line, one JSON object.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from stream_core.testing.engine import MODEL
from stream_core.testing.road import Road, run_road, wait_hot

ROUNDS = 5
CLIENTS = (1, 8, 32, 128)
# Paced like a model: 20 tokens at 40 a second. One client gets short streams, to have enough of them.
PACED = {"tokens": 20, "interval_ms": 25}
SHORT = {"tokens": 4, "interval_ms": 5}
THROUGHPUT_STREAMS = 64
THROUGHPUT_TOKENS = 3000


def load(url: str, key: str, model: str, script: dict[str, Any], clients: int, requests: int) -> dict[str, Any]:
    """Run the load generator once."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}], "script": script}
    spread = script.get("tokens", 0) * script.get("interval_ms", 0) / 1000
    job = {"url": f"{url}/v1/chat/completions", "key": key, "body": body, "clients": clients, "requests": requests}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("load.py"))],
        input=json.dumps(job | {"spread_s": spread}),
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["incomplete"]:
        raise RuntimeError(f"{result['incomplete']} answers were not complete")
    return result


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def first_token(road: Road, clients: int) -> dict[str, Any]:
    """Added time to first token at so many clients, in ms: the difference of percentiles, and its range over rounds."""
    script, requests = (SHORT, 60) if clients == 1 else (PACED, max(2, 64 // clients))
    direct: list[float] = []
    hpc: list[float] = []
    added = []
    for _ in range(ROUNDS):
        once = load(road.engine_url, "", MODEL, script, clients, requests)["first_ms"]
        twice = load(road.gateway_url, road.api_key, "hpc", script, clients, requests)["first_ms"]
        added.append(statistics.median(twice) - statistics.median(once))
        direct += once
        hpc += twice
    return {
        "p50": round(percentile(hpc, 0.5) - percentile(direct, 0.5), 2),
        "p99": round(percentile(hpc, 0.99) - percentile(direct, 0.99), 2),
        "range_p50": [round(min(added), 2), round(max(added), 2)],
        "direct_p50": round(percentile(direct, 0.5), 2),
        "samples": len(hpc),
    }


def processes(road: Road) -> dict[str, psutil.Process]:
    """Every process of the road by name, and the engine."""
    found = {name: psutil.Process(pid) for name, pid in road.pids().items()}
    (engine,) = [p for p in psutil.Process().children(recursive=True) if "testing.engine" in " ".join(p.cmdline())]
    return found | {"engine": engine}


def throughput(road: Road, per_write: int) -> dict[str, Any]:
    """Tokens per second through the whole road with 64 unpaced streams, and CPU microseconds per token."""
    script = {"tokens": THROUGHPUT_TOKENS, "per_write": per_write}
    rates, costs = [], []
    for _ in range(ROUNDS):
        parts = processes(road)
        before = {name: sum(process.cpu_times()[:2]) for name, process in parts.items()}
        result = load(road.gateway_url, road.api_key, "hpc", script, THROUGHPUT_STREAMS, 1)
        rates.append(result["events"] / result["elapsed_s"])
        costs.append(
            {
                name: (sum(process.cpu_times()[:2]) - before[name]) * 1e6 / result["events"]
                for name, process in parts.items()
            }
        )
    return {
        "tokens_per_s": round(statistics.median(rates)),
        "range": [round(min(rates)), round(max(rates))],
        "cpu_us_per_token": {name: round(statistics.median(cost[name] for cost in costs), 2) for name in costs[0]},
    }


def main() -> None:
    """Measure, print a table, then the JSON line."""
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as folder, run_road(Path(folder)) as road:
        asyncio.run(wait_hot(road))
        load(road.gateway_url, road.api_key, "hpc", SHORT, 8, 20)
        added = {str(clients): first_token(road, clients) for clients in CLIENTS}
        unpaced = {per_write: throughput(road, per_write) for per_write in (1, 4, 16)}
    print("Added time to first token of the HPC tier over the engine itself, ms (range of the rounds' medians)")
    print(f"{'clients':>8} {'p50':>8} {'p99':>8} {'range of p50':>16} {'engine p50':>11} {'samples':>8}")
    for clients, row in added.items():
        spread = "{} - {}".format(*row["range_p50"])
        print(f"{clients:>8} {row['p50']:>8} {row['p99']:>8} {spread:>16} {row['direct_p50']:>11} {row['samples']:>8}")
    print(f"\n{THROUGHPUT_STREAMS} streams unpaced, by the tokens that the engine puts into one write; CPU us a token")
    for per_write, row in unpaced.items():
        cost = "  ".join(f"{name} {value}" for name, value in row["cpu_us_per_token"].items())
        print(
            f"{per_write:>3} a write: {row['tokens_per_s']:>8} tokens/s ({row['range'][0]} - {row['range'][1]})  {cost}"
        )
    chosen = unpaced[1]
    print(
        json.dumps(
            {
                "ttft_added_ms": {clients: {"p50": row["p50"], "p99": row["p99"]} for clients, row in added.items()},
                "tokens_per_s": chosen["tokens_per_s"],
                "cpu_us_per_token": chosen["cpu_us_per_token"],
                "tokens_per_s_by_write": {str(number): row["tokens_per_s"] for number, row in unpaced.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
