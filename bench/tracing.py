"""What tracing costs: the whole road without it, at the default sampling, and with every request recorded, in turns.

Three roads of real processes stand side by side on this machine; each round loads one after the other, in another
order each time, so that a machine that slows down slows all of them. Answers have 200 tokens, one to a write, unpaced:
per-request work weighs as much as it does with answers of ordinary length. Spans go to a process that takes and drops
them. Prints a table and, as its last line, one JSON object.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dataplane import load

from stream_core.settings import TraceSettings
from stream_core.testing.road import Road, run_road, wait_hot

ROUNDS = 6
STREAMS = 32
ANSWERS = 40
TOKENS = 200
SCRIPT = {"tokens": TOKENS, "per_write": 1}
MODES = {"off": None, "default": TraceSettings().sample_ratio, "all": 1.0}
SINK = """
import asyncio
async def take(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(int(l[15:]) for l in head.lower().split(b"\\r\\n") if l.startswith(b"content-length:"))
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n\\r\\n")
    except asyncio.IncompleteReadError:
        writer.close()
async def main():
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """Run what takes spans and drops them; its URL."""
    with subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101  (it was asked for)
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1/traces"
        finally:
            process.terminate()


def measured(road: Road) -> tuple[float, float]:
    """One load run: (tokens a second, CPU microseconds a token over all parts but the engine)."""
    parts = [psutil.Process(pid) for name, pid in road.pids().items() if name != "nats"]
    before = sum(sum(process.cpu_times()[:2]) for process in parts)
    result = load(road.gateway_url, road.api_key, "hpc", SCRIPT, STREAMS, ANSWERS)
    spent = sum(sum(process.cpu_times()[:2]) for process in parts) - before
    return result["events"] / result["elapsed_s"], spent * 1e6 / result["events"]


def environment(ratio: float | None, url: str) -> dict[str, str]:
    """Turn tracing on in every program of a road, or leave it off."""
    if ratio is None:
        return {}
    return {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url, "STREAM_GATEWAY__TRACES__SAMPLE_RATIO": str(ratio)}


def percent(values: list[float]) -> float:
    """Median of shares, as percent."""
    return round(statistics.median(values) * 100, 2)


def main() -> None:
    """Measure, print a table, then the JSON line."""
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    costs: dict[str, list[float]] = {mode: [] for mode in MODES}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(sink())
        roads = {}
        for mode, ratio in MODES.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stream-bench-")))
            roads[mode] = stack.enter_context(run_road(folder, env=environment(ratio, url)))
            asyncio.run(wait_hot(roads[mode]))
            measured(roads[mode])
        names = list(MODES)
        for number in range(ROUNDS):
            turn = number % len(names)
            for mode in names[turn:] + names[:turn]:
                rate, cost = measured(roads[mode])
                rates[mode].append(rate)
                costs[mode].append(cost)
    result: dict[str, Any] = {}
    print(f"\n{STREAMS} streams, answers of {TOKENS} tokens, {ROUNDS} rounds in turns")
    print(f"{'tracing':>10} {'tokens/s':>10} {'slower %':>9} {'range %':>18} {'CPU us/token':>13} {'more CPU %':>11}")
    for mode in MODES:
        slower = [1 - rate / off for rate, off in zip(rates[mode], rates["off"], strict=True)]
        more = [cost / off - 1 for cost, off in zip(costs[mode], costs["off"], strict=True)]
        row = {
            "tokens_per_s": round(statistics.median(rates[mode])),
            "slower_percent": percent(slower),
            "slower_range_percent": [round(min(slower) * 100, 2), round(max(slower) * 100, 2)],
            "cpu_us_per_token": round(statistics.median(costs[mode]), 2),
            "more_cpu_percent": percent(more),
        }
        result[mode] = row
        spread = "{} - {}".format(*row["slower_range_percent"])
        print(
            f"{mode:>10} {row['tokens_per_s']:>10} {row['slower_percent']:>9} {spread:>18}"
            f" {row['cpu_us_per_token']:>13} {row['more_cpu_percent']:>11}"
        )
    # What one recorded request costs is measured well, since all of them do; a share of that is below the noise.
    more_us = (result["all"]["cpu_us_per_token"] - result["off"]["cpu_us_per_token"]) * TOKENS
    share = TraceSettings().sample_ratio * more_us / (result["off"]["cpu_us_per_token"] * TOKENS)
    print(f"a recorded request: {more_us:.0f} us; at the default sampling that is {share:.1%} of the processor's time")
    print(json.dumps({"sample_ratio": MODES["default"], "recorded_request_us": round(more_us), **result}))


if __name__ == "__main__":
    main()
