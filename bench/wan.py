"""`make bench-wan`: the sealed HPC road across a WAN of 80 ms round trip, beside the same road on loopback.

Real processes in two network namespaces; the site refuses all inbound connections. The rounds of both roads take
turns, and so do windows that stay as they begin and windows that grow. Needs root, `ip` and /dev/net/tun. Prints a
table and, as its last line, one JSON object.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from gateway_hpc import lane
from wan import figures
from wan.namespaces import inside, why_not
from wan.parts import far_lane

from stream_core.wire.window import Limits
from stream_gateway.sealed_call import DEFAULT_WINDOW

ROUND_TRIP_MS = 80.0
ROUNDS = 5
FIRST_TOKENS = 12
FIRST = {"tokens": 2}
PACED = {"tokens": 3000, "per_write": 2, "interval_ms": 1}
STREAMS = 32
LONG, SHORT = 60_000, 3000
"""Tokens of one unpaced answer; its steady rate is that of the last half of one four times as long, since the start
of TCP and of the window takes six round trips. Where packets are lost, TCP is so slow that a long one says no more."""
LOSSES = {0.0: LONG, 0.01: SHORT}
WINDOWS = {"fixed_window": Limits(most=DEFAULT_WINDOW), "growing_window": Limits()}


class Lane(NamedTuple):
    """One road: its parts, and how to be where its two ends are."""

    parts: lane.Parts
    at_gateway: Callable[[], AbstractContextManager[None]]
    at_engine: Callable[[], AbstractContextManager[None]]
    tokens: int


async def measure_once(road: Lane) -> dict[str, float]:
    """One round: added time to first token over the engine's own, and rates."""
    with road.at_engine():
        engine = [(await figures.ask_engine(road.parts.engine_url, FIRST))[0] for _ in range(FIRST_TOKENS)]
    with road.at_gateway():
        target = await lane.announced(road.parts)
        async with lane.channel(road.parts.nats_url) as gateway:
            ours = [await figures.first_token_ms(gateway, target, FIRST) for _ in range(FIRST_TOKENS)]
            found = {
                "ttft_added_ms": statistics.median(ours) - statistics.median(engine),
                "one_paced_tokens_per_s": await figures.tokens_per_s(gateway, target, PACED, streams=1),
            }
        for name, limits in WINDOWS.items():
            async with lane.channel(road.parts.nats_url, limits=limits) as gateway:
                for streams, tokens in ((1, road.tokens), (STREAMS, max(SHORT, road.tokens // 10))):
                    rate = await figures.tokens_per_s(gateway, target, {"tokens": tokens}, streams=streams)
                    found[f"{'one' if streams == 1 else 'many'}_unpaced_{name}"] = rate
                steady = figures.steady_tokens_per_s(
                    gateway, target, {"tokens": 4 * road.tokens}, after=2 * road.tokens
                )
                found[f"one_unpaced_steady_{name}"] = await steady
    return found


def measure() -> dict[str, dict[str, Any]]:
    """All rounds of all roads: the median of each figure, and its range."""
    rounds: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        near_folder, far_folder = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        near = stack.enter_context(lane.parts(near_folder))
        stack.enter_context(lane.worker(near))
        far = stack.enter_context(far_lane(far_folder, round_trip_ms=ROUND_TRIP_MS))
        nowhere = contextlib.nullcontext
        here = Lane(near, nowhere, nowhere, LONG)
        for _ in range(ROUNDS):
            rounds.setdefault("loopback", []).append(asyncio.run(measure_once(here)))
            for loss, tokens in LOSSES.items():
                there = Lane(far.lane, lambda: inside(far.wan.centre), lambda: inside(far.wan.site), tokens)
                far.wan.command(f"loss {loss}")
                rounds.setdefault(f"loss_{loss:g}", []).append(asyncio.run(measure_once(there)))
    return {
        road: {
            figure: {
                "median": round(statistics.median(one[figure] for one in all_), 1),
                "range": [round(min(one[figure] for one in all_), 1), round(max(one[figure] for one in all_), 1)],
            }
            for figure in all_[0]
        }
        for road, all_ in rounds.items()
    }


def main() -> None:
    """Measure, print a table, then the JSON line."""
    if reason := why_not():
        print(json.dumps({"skipped": reason}))
        sys.exit(0)
    result = measure()
    roads = list(result)
    print(f"The sealed road at {ROUND_TRIP_MS:g} ms round trip, median (range) of {ROUNDS} rounds")
    print(f"{'tokens a second':<26}" + "".join(f"{road:>30}" for road in roads))
    for figure in result[roads[0]]:
        cells = (result[road][figure] for road in roads)
        text = ("{} ({} - {})".format(cell["median"], *cell["range"]) for cell in cells)
        print(f"{figure:<26}" + "".join(f"{cell:>30}" for cell in text))
    medians = {road: {figure: cell["median"] for figure, cell in row.items()} for road, row in result.items()}
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    print(json.dumps({"round_trip_ms": ROUND_TRIP_MS, "streams": STREAMS, "congestion_control": congestion} | medians))


if __name__ == "__main__":
    main()
