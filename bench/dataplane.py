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
import threading
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from peer.streamrelay import PACKAGE, NotInstalled, Peer, install, run_peer

from stream_core.testing.engine import MODEL
from stream_core.testing.road import Road, run_road, wait_hot

ROUNDS = 5
CLIENTS = (1, 8, 32, 128)
# Paced like a model: 20 tokens at 40 a second. One client gets short streams, to have enough of them.
PACED = {"tokens": 20, "interval_ms": 25}
SHORT = {"tokens": 4, "interval_ms": 5}
THROUGHPUT_STREAMS = 64
THROUGHPUT_TOKENS = 3000
PEER_ROUNDS = 5
PEER_TOKENS = 600
KILLED = {"tokens": 160, "interval_ms": 25}


def load(
    url: str,
    key: str,
    model: str,
    script: dict[str, Any],
    clients: int,
    requests: int,
    *,
    may_break: bool = False,
) -> dict[str, Any]:
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
    if result["incomplete"] and not may_break:
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


def unpaced_once(road: Road, script: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """One run of 64 unpaced streams: tokens per second, CPU microseconds per token by process."""
    parts = processes(road)
    before = {name: sum(process.cpu_times()[:2]) for name, process in parts.items()}
    result = load(road.gateway_url, road.api_key, "hpc", script, THROUGHPUT_STREAMS, 1)
    cost = {
        name: (sum(process.cpu_times()[:2]) - before[name]) * 1e6 / result["events"] for name, process in parts.items()
    }
    return result["events"] / result["elapsed_s"], cost


def one_event(road: Road) -> str:
    """The text of one token as it travels on our road: the peer carries the same bytes."""
    body = {"model": MODEL, "stream": True, "messages": [], "script": {"tokens": 1}}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(  # noqa: S310  (the engine of this very run)
        f"{road.engine_url}/v1/chat/completions", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310  (as above)
        events: list[bytes] = answer.read().split(b"\n\n")
    return events[1].decode()


def side_by_side(road: Road, peers: dict[str, Peer]) -> dict[str, dict[str, Any]]:
    """Ours and the peers in turns: medians over the rounds, by name."""
    event, names = one_event(road), ["ours", *peers]
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    firsts: dict[str, list[float]] = {name: [] for name in names}
    missing = dict.fromkeys(names, 0)
    for _ in range(PEER_ROUNDS):
        direct = load(road.engine_url, "", MODEL, SHORT, 1, 40)["first_ms"]
        through = load(road.gateway_url, road.api_key, "hpc", SHORT, 1, 40)["first_ms"]
        firsts["ours"].append(statistics.median(through) - statistics.median(direct))
        rate, cost = unpaced_once(road, {"tokens": PEER_TOKENS, "per_write": 1})
        rates["ours"].append(rate)
        costs["ours"].append(sum(spent for name, spent in cost.items() if name != "engine"))
        for name, peer in peers.items():
            paced = peer.load(event, tokens=SHORT["tokens"], clients=1, requests=40, interval_ms=SHORT["interval_ms"])
            firsts[name].append(statistics.median(paced["first_ms"]))
            result = peer.load(event, tokens=PEER_TOKENS, clients=THROUGHPUT_STREAMS, head_start_s=1.5)
            rates[name].append(result["tokens"] / result["elapsed_s"])
            costs[name].append(sum(result["cpu_s"].values()) * 1e6 / result["tokens"])
            missing[name] += result["missing"] + paced["missing"]
    return {
        name: {
            "tokens_per_s": round(statistics.median(rates[name])),
            "ttft_added_ms": round(statistics.median(firsts[name]), 2),
            "ttft_range_ms": [round(min(firsts[name]), 2), round(max(firsts[name]), 2)],
            "cpu_us_per_token": round(statistics.median(costs[name]), 2),
            "lost_undisturbed": missing[name],
        }
        for name in names
    }


def lost_on_kill(folder: Path) -> dict[str, Any]:
    """Kill -9 one of two relays of ours under 64 streams: what their clients miss."""
    tokens = int(KILLED["tokens"])
    with run_road(folder, relays=2) as road:
        asyncio.run(wait_hot(road))
        victim = road.relays[road.relay_in_use()].process
        timer = threading.Timer(2.0, victim.kill)
        timer.start()
        script = dict(KILLED)
        result = load(road.gateway_url, road.api_key, "hpc", script, THROUGHPUT_STREAMS, 1, may_break=True)
        timer.join()
    # Besides the tokens an answer has a chunk with the role and one with the reason of its end.
    lost = THROUGHPUT_STREAMS * (tokens + 2) - result["events"]
    return {
        "streams": THROUGHPUT_STREAMS,
        "streams_broken": result["incomplete"],
        "tokens": THROUGHPUT_STREAMS * tokens,
        "tokens_lost": lost,
    }


def with_peer(road: Road) -> dict[str, Any]:
    """The published peer beside ours, and the ratios: more than 1 means that ours is better."""
    try:
        python = install()
    except NotInstalled as error:
        print(f"\nNo peer to compare with: {error}")
        return {"peer": None, "ratio": None}
    with run_peer(python, sealed=True) as sealed, run_peer(python, sealed=False) as plain:
        rows = side_by_side(road, {"sealed": sealed, "plain": plain})
        rows["sealed"]["lost_on_relay_kill"] = sealed.kill_relay(
            one_event(road), int(KILLED["tokens"]), THROUGHPUT_STREAMS, KILLED["interval_ms"]
        )
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as folder:
        rows["ours"]["lost_on_relay_kill"] = lost_on_kill(Path(folder))
    ours, theirs = rows["ours"], rows["sealed"]
    ratio = {
        "tokens_per_s": round(ours["tokens_per_s"] / theirs["tokens_per_s"], 2),
        "cpu_us_per_token": round(theirs["cpu_us_per_token"] / ours["cpu_us_per_token"], 2),
        "ttft_added_ms": round(theirs["ttft_added_ms"] / ours["ttft_added_ms"], 2),
    }
    _print_peer(rows, ratio)
    return {"peer": theirs | {"unsealed": rows["plain"], "beside": ours}, "ratio": ratio}


def _print_peer(rows: dict[str, dict[str, Any]], ratio: dict[str, float]) -> None:
    print(f"\nThe published peer {PACKAGE} in turns with ours: {THROUGHPUT_STREAMS} streams unpaced, one client paced")
    print("ours: from the engine's HTTP through all parts to the client's HTTP; CPU of all parts but the engine")
    print("peer: tokens made in its producer, counted in its consumer, its job queue left out; CPU of its three parts")
    print(f"{'':>22} {'ours':>10} {'peer sealed':>12} {'unsealed':>10} {'ratio':>7}")
    for name in ("tokens_per_s", "cpu_us_per_token", "ttft_added_ms"):
        verdict = "" if ratio[name] > 1 else "  NOT in our favour"
        values = f"{rows['ours'][name]:>10} {rows['sealed'][name]:>12} {rows['plain'][name]:>10}"
        print(f"{name:>22} {values} {ratio[name]:>7}{verdict}")
    spreads = "  ".join("{} {} - {}".format(name, *row["ttft_range_ms"]) for name, row in rows.items())
    print(f"first token, range of the rounds' medians: {spreads}")
    for name in ("ours", "sealed"):
        lost = rows[name]["lost_on_relay_kill"]
        said = (
            f"{lost['streams_broken']} of {lost['streams']} streams, {lost['tokens_lost']} of {lost['tokens']} tokens"
        )
        print(f"relay killed, {name}: lost {said}")
    for name, row in rows.items():
        if row["lost_undisturbed"]:
            print(f"{name} lost {row['lost_undisturbed']} tokens although nothing was killed")


def throughput(road: Road, per_write: int) -> dict[str, Any]:
    """Tokens per second through the whole road with 64 unpaced streams, and CPU microseconds per token."""
    script = {"tokens": THROUGHPUT_TOKENS, "per_write": per_write}
    rates, costs = [], []
    for _ in range(ROUNDS):
        rate, cost = unpaced_once(road, script)
        rates.append(rate)
        costs.append(cost)
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
        compared = with_peer(road)
    print("\nAdded time to first token of the HPC tier over the engine itself, ms (range of the rounds' medians)")
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
            | compared
        )
    )


if __name__ == "__main__":
    main()
