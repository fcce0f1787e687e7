"""`make bench-dispatch`: what a request to a cluster costs: with a hot pilot, a job of its own, and in batch mode.

One real Slurm, one engine (the embedded one with the demo model, which all workers attach to), one run; the ways take
turns, so that a machine that slows down slows all of them. Prints a table and, as its last line, one JSON object.

    engine       the engine asked directly: first token
    hot          through a pilot job that is ready: first token at the client
    per_request  `max_requests: 1`, nothing ready: a Slurm job is submitted for the request, first token at the client
    batch        through the ready pilot, answer only when it is complete
    renewal      clients ask without pause while the pilot's lease ends and its successor takes over: broken answers
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from hpc.slurm import Slurm, run_slurm, why_not

from stream_core.testing.engine import MODEL
from stream_core.testing.programs import start
from stream_core.testing.road import Road, run_road, wait_hot

ROUNDS = 3
CLIENTS = (1, 16)
ANSWERS = {1: 8, 16: 2}
"""Of each client in a round; of the way with a job for each request one."""
TOKENS = 200
QUESTION = [{"role": "user", "content": "What is a relay?"}]
RENEWAL_S = 75.0
RENEWED = {"walltime_s": 30.0, "queue_margin_s": 0.0}
PACED = {"tokens": 100, "interval_ms": 50, "text": " {n}"}
_LIMIT_S = 300.0


class Way(NamedTuple):
    """One way to ask."""

    url: str
    key: str
    model: str
    stream: bool = True


async def ask(session: aiohttp.ClientSession, way: Way) -> float:
    """Ask once: seconds to the first token, or to the whole answer where it is not streamed."""
    body = {"model": way.model, "messages": QUESTION, "stream": way.stream, "temperature": 0}
    body |= {"max_tokens": TOKENS, "ignore_eos": True}
    headers = {"authorization": f"Bearer {way.key}"} if way.key else {}
    began, first = time.perf_counter(), 0.0
    async with session.post(f"{way.url}/v1/chat/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise RuntimeError(f"{way.url}: {await response.text()}")
        if not way.stream:
            answer = await response.json()
            if not answer["choices"][0]["message"]["content"]:
                raise RuntimeError("an answer without text")
            return time.perf_counter() - began
        done = False
        async for line in response.content:
            if line.startswith(b"data: {") and not first and _has_text(line):
                first = time.perf_counter() - began
            done = done or line.startswith(b"data: [DONE]")
        if not done or not first:
            raise RuntimeError("an answer that was not complete")
    return first


def _has_text(line: bytes) -> bool:
    choices = json.loads(line[6:]).get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content"))


async def round_of(way: Way, clients: int, answers: int) -> list[float]:
    """Ask with so many clients at once, each so often: milliseconds."""
    # llama.cpp closes a connection after each stream; a new one for each question is the same for all ways.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=_LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one() -> list[float]:
            return [await ask(session, way) * 1000 for _ in range(answers)]

        return list(chain(*await asyncio.gather(*(one() for _ in range(clients)))))


async def measure(ways: dict[str, Way]) -> dict[str, dict[str, dict[str, Any]]]:
    """All ways in turns, by name and number of clients."""
    taken: dict[str, dict[str, list[list[float]]]] = {name: {str(n): [] for n in CLIENTS} for name in ways}
    for _ in range(ROUNDS):
        for clients in CLIENTS:
            for name, way in ways.items():
                answers = 1 if name == "per_request" else ANSWERS[clients]
                taken[name][str(clients)].append(await round_of(way, clients, answers))
    return {name: {n: _figures(rounds) for n, rounds in by.items()} for name, by in taken.items()}


def _figures(rounds: list[list[float]]) -> dict[str, Any]:
    every = sorted(chain(*rounds))
    medians = [statistics.median(values) for values in rounds]
    return {
        "p50": round(statistics.median(every), 1),
        "p95": round(every[min(len(every) - 1, int(len(every) * 0.95))], 1),
        "range_p50": [round(min(medians), 1), round(max(medians), 1)],
        "samples": len(every),
    }


async def renewal(road: Road) -> dict[str, int]:
    """Ask without pause over several leases: answers begun, and those that were not byte for byte the engine's."""
    asked = {"stream": True, "messages": QUESTION, "script": PACED}
    headers, connector = {"authorization": f"Bearer {road.api_key}"}, aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def body(url: str, model: str) -> bytes:
            async with session.post(f"{url}/v1/chat/completions", json=asked | {"model": model}) as response:
                return await response.read()

        expected = await body(road.engine_url, MODEL)
        until, streams, broken = time.monotonic() + RENEWAL_S, 0, 0

        async def client() -> None:
            nonlocal streams, broken
            while time.monotonic() < until:
                streams += 1
                try:
                    broken += await body(road.gateway_url, "hpc") != expected
                except aiohttp.ClientError:
                    broken += 1

        await asyncio.gather(*(client() for _ in range(CLIENTS[-1])))
    return {"streams": streams, "broken": broken}


@contextlib.contextmanager
def slurm_road(slurm: Slurm, pool: dict[str, Any]) -> Iterator[Road]:
    """A road whose workers are jobs of this Slurm."""
    cluster = {"backend": "parsl", "parsl": {"scheduler": "slurm"}}
    with tempfile.TemporaryDirectory(prefix="stream-bench-") as folder:
        env = slurm.env | {"STREAM_WORKER__DRAIN_S": "6"}
        with run_road(Path(folder), pool=pool, env=env, cluster=cluster) as road:
            yield road


def main() -> None:
    """Measure, print a table, then the JSON line."""
    if reason := why_not():
        print(json.dumps({"skipped": f"no Slurm here: {reason}"}))
        sys.exit(0)
    env = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__PARALLEL": str(CLIENTS[-1])}
    with run_slurm() as slurm, start("stream_engine", env=env) as engine:
        url = engine.ready["base_url"].removesuffix("/v1")
        model = {"id": "demo", "upstream": engine.ready["model"], "context_window": 2048, "demo": True}
        pool = {"model": model, "engine_url": url}
        each = {"min_ready": 0, "max_workers": CLIENTS[-1], "max_requests": 1, "idle_timeout_s": 0.0}
        with slurm_road(slurm, pool) as hot, slurm_road(slurm, pool | each) as cold:
            asyncio.run(wait_hot(hot))
            through = Way(hot.gateway_url, hot.api_key, "hpc")
            ways = {
                "engine": Way(url, "", engine.ready["model"]),
                "hot": through,
                "batch": through._replace(stream=False),
                "per_request": Way(cold.gateway_url, cold.api_key, "hpc"),
            }
            rows = asyncio.run(measure(ways))
        with slurm_road(slurm, RENEWED) as road:
            asyncio.run(wait_hot(road))
            renewed = asyncio.run(renewal(road))
            leases = len(list(Path(road.folder, "dispatch", "jobs").rglob("log")))
    print(f"\nFirst token, or the whole answer of {TOKENS} tokens in batch mode; ms (range of the rounds' medians)")
    print(f"{'':>12} {'clients':>8} {'p50':>9} {'p95':>9} {'range of p50':>20} {'samples':>8}")
    for name, by_clients in rows.items():
        for clients, row in by_clients.items():
            spread = "{} - {}".format(*row["range_p50"])
            print(f"{name:>12} {clients:>8} {row['p50']:>9} {row['p95']:>9} {spread:>20} {row['samples']:>8}")
    for clients in rows["hot"]:
        over = rows["hot"][clients]["p50"] - rows["engine"][clients]["p50"]
        print(f"hot over the engine's own, {clients} clients: {over:.1f} ms (aim 20)")
    print(f"renewal: {renewed['broken']} of {renewed['streams']} answers broken over {leases} leases")
    kept = ("p50", "p95")
    print(
        json.dumps(
            {
                f"{name}_ms": {clients: {key: row[key] for key in kept} for clients, row in by_clients.items()}
                for name, by_clients in rows.items()
            }
            | {"renewal": renewed | {"leases": leases}}
        )
    )


if __name__ == "__main__":
    main()
