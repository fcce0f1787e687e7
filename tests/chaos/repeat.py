"""`make chaos`: the rows again and again, with how long clients waited; the last line is one JSON object.

Usage: python -m chaos.repeat [RUNS]
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import deeds

from stream_core.testing.road import Road, run_road, wait_hot

ROWS: dict[str, deeds.Deed] = {
    "relay_killed": deeds.kill_relay,
    "relay_drained": deeds.drain_relay,
    "broker_restarted": deeds.restart_broker,
    "broker_drops_clients": deeds.drop_broker_clients,
    "gateway_frozen_2s": deeds.freeze_gateway,
    "network_cut_5s": deeds.cut_network,
    "judge_killed": deeds.kill_service("judge"),
    "summarizer_killed": deeds.kill_service("summarizer"),
    "dispatch_killed": deeds.kill_service("hpc_dispatch"),
    "worker_killed": deeds.kill_worker,
}
SMALL_BROKER_ROWS: dict[str, deeds.Deed] = {
    "slow_gateway": deeds.starve_gateway,
    "slow_relay": deeds.starve_relay,
}
"""On a road of its own, whose broker disconnects who does not read."""


def _comparison(name: str) -> Callable[[bytes], bytes]:
    # A continued answer's chunks are not the same bytes, its text is.
    return deeds.text_of if name == "worker_killed" else deeds.verbatim


async def _row(road: Road, name: str, deed: deeds.Deed, runs: int, **load: Any) -> dict[str, float]:
    outcomes = []
    for _ in range(runs):
        await wait_hot(road, workers=len(road.workers()))
        outcomes.append(await deeds.under_load(road, deed, compare=_comparison(name), **load))
    lost = sum(outcome.lost for outcome in outcomes)
    longest = max(outcome.max_pause_ms for outcome in outcomes)
    p99 = max(outcome.p99_pause_ms for outcome in outcomes)
    print(f"{name:>22}  runs {runs}  lost {lost}  longest {longest:>8}  p99 {p99:>8}", flush=True)
    return {"runs": runs, "lost": lost, "max_pause_ms": longest}


async def repeat(runs: int) -> dict[str, dict[str, float]]:
    """Do every row so many times."""
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="stream-chaos-") as folder:
        print(f"{deeds.STREAMS} streams; pauses in ms, the longest and the p99 over the streams of the worst run")
        whole, small = Path(folder, "whole"), Path(folder, "small")
        for place in (whole, small):
            place.mkdir()
        with run_road(whole, relays=2, workers=2, judge=True, gates=True) as road:
            for name, deed in ROWS.items():
                rows[name] = await _row(road, name, deed, runs)
            left = [await deeds.leave(road) for _ in range(runs)]
        with run_road(small, relays=2, broker_limits=deeds.SMALL_BROKER) as road:
            for name, deed in SMALL_BROKER_ROWS.items():
                rows[name] = await _row(road, name, deed, runs, script=deeds.FAST_SCRIPT)
        rows["client_leaves"] = {"runs": runs, "lost": 0, "max_pause_ms": round(max(left), 1)}
        print(f"{'client_leaves':>22}  runs {runs}  engine aborted after at most {max(left):.1f} ms", flush=True)
    return rows


def main() -> None:
    """Run, then the JSON line."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(json.dumps({"rows": asyncio.run(repeat(runs))}))


if __name__ == "__main__":
    main()
