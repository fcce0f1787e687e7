"""Every part is killed while a batch runs: each line is there exactly once, and all of them succeeded."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import openai
import psutil
import pytest
from batches.press import Press, eventually, gateway_env, jsonl, lines_of, reach, request, start, upload
from openai.types import Batch

from stream_core.files import write_private
from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process
LINES = 800
CONCURRENCY = 16
UNDER_WAY = 2 * CONCURRENCY
"""Lines that the two gateways can have in hand when something dies."""
SECRET_PROMPT = "the-prompt-nobody-may-read"
SECRET_ANSWER = "-the-answer-nobody-may-read"


@dataclass
class Replicas:
    """A road with two gateways; `second` is one on a port of its own."""

    road: Road
    second: "contextlib.ExitStack" = field(default_factory=contextlib.ExitStack)
    urls: list[str] = field(default_factory=list)

    def clients(self) -> list[openai.AsyncOpenAI]:
        """A client of each, which tries again by itself, as clients do."""
        return [
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=self.road.api_key, max_retries=20) for url in self.urls
        ]


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[Replicas]:
    """One worker that is always there, two gateways on one broker."""
    write_private(tmp_path / "batch.key", secrets.token_hex(32).encode())
    env = gateway_env(tmp_path, "")
    del env["STREAM_GATEWAY__NATS__URL"]
    env["STREAM_GATEWAY__BATCHES__MAX_CONCURRENCY"] = str(CONCURRENCY)
    with run_road(tmp_path, env=env) as road:
        asyncio.run(wait_hot(road))
        first = road.services.pop("gateway")
        road.start_service("gateway")
        yield Replicas(road, urls=[f"http://127.0.0.1:{first.ready['port']}", road.gateway_url])


async def _go_on(client: openai.AsyncOpenAI, batch: Batch) -> None:
    """Until more lines are done than were under way: what just died has been got over.

    Counted from now, since on a quick machine a fixed number is reached before the deed.
    """
    done = _completed(await client.batches.retrieve(batch.id))
    assert done + UNDER_WAY < LINES, "too few lines for what is done to them"
    await reach(client, batch.id, lambda now: _completed(now) > done + UNDER_WAY)


def _completed(batch: Batch) -> int:
    return batch.request_counts.completed if batch.request_counts else 0


async def test_exactly_once(replicas: Replicas) -> None:
    """A gateway, the worker, hpc_dispatch and the broker die by kill -9, one after another, while lines run."""
    road = replicas.road
    content = jsonl(
        *[
            request(
                f"line-{n}",
                f"{SECRET_PROMPT} {n}",
                model="hpc",
                script={"tokens": 1, "text": f"{n}{SECRET_ANSWER}", "delay_ms": 300},
            )
            for n in range(LINES)
        ]
    )
    first, second = replicas.clients()
    async with first, second:
        batch = await start(first, await upload(first, content))
        await _go_on(second, batch)
        # The gateway that the road knows dies for a while; the other one goes on.
        gateway = road.services["gateway"]
        gateway.process.kill()
        await asyncio.to_thread(gateway.process.wait)
        await _go_on(first, batch)
        await asyncio.to_thread(road.start_service, "gateway")
        worker = road.workers()[0]
        worker.kill()
        await asyncio.to_thread(psutil.wait_procs, [worker], 5)
        await _go_on(first, batch)  # on a worker that dispatch has started in its place
        dispatch = road.services["hpc_dispatch"]
        dispatch.process.kill()
        await asyncio.to_thread(dispatch.process.wait)
        await _go_on(second, batch)
        await asyncio.to_thread(road.start_service, "hpc_dispatch")
        road.brokers[0].kill()
        await asyncio.to_thread(road.brokers[0].start)
        await _go_on(second, batch)
        road.brokers[0].kill()  # at rest, and as it was in the middle of the work
        _assert_nothing_readable(road.folder / "nats0" / "store")
        await asyncio.to_thread(road.brokers[0].start)
        batch = await reach(first, batch.id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
        results = await lines_of(second, batch.output_file_id)
        assert batch.error_file_id is None
        assert sorted(line["custom_id"] for line in results) == sorted(f"line-{n}" for n in range(LINES))
        for line in results:
            answer = line["response"]["body"]["choices"][0]["message"]["content"]
            assert answer == line["custom_id"].removeprefix("line-") + SECRET_ANSWER
    road.brokers[0].stop()
    _assert_nothing_readable(road.folder / "nats0" / "store")
    await asyncio.to_thread(road.brokers[0].start)


def _assert_nothing_readable(store: Path) -> None:
    files = [path for path in store.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > LINES * 100  # it is all there
    for path in files:
        content = path.read_bytes()
        for secret in (SECRET_PROMPT, SECRET_ANSWER, "line-1", "requests.jsonl"):
            assert secret.encode() not in content, path


async def test_a_line_that_ran_twice(tmp_path: Path, engine: str) -> None:
    """A replica that stands still loses its lines to another one, and comes back with answers: one of two counts."""
    with Press.running(tmp_path, engine) as press, press.stage.run(gateway_env(tmp_path, press.broker.url)) as other:
        client = openai.AsyncOpenAI(base_url=f"{other.url}/v1", api_key=press.stage.keys["all"])
        async with client, aiohttp.ClientSession() as session:
            content = jsonl(*[request(f"r{n}", f"twice {n}", script={"delay_ms": 700}) for n in range(60)])
            batch = await start(client, await upload(client, content))
            frozen = press.gateway.program.process.pid
            await eventually(lambda: bool(press.gateway.lines("request")) and bool(other.lines("request")))
            os.kill(frozen, signal.SIGSTOP)
            try:
                async with asyncio.timeout(60):
                    while True:
                        if await _asked_twice(session, engine):
                            break
                        await asyncio.sleep(0.1)
                await reach(client, batch.id, lambda now: _completed(now) >= 50)
            finally:
                os.kill(frozen, signal.SIGCONT)
            batch = await reach(client, batch.id)
            results = await lines_of(client, batch.output_file_id)
            assert await _asked_twice(session, engine)
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 60, "completed": 60, "failed": 0}
    assert sorted(line["custom_id"] for line in results) == sorted(f"r{n}" for n in range(60))


async def _asked_twice(session: aiohttp.ClientSession, engine: str) -> set[str]:
    async with session.get(f"{engine}/requests") as response:
        asked = Counter(seen["body"]["messages"][0]["content"] for seen in await response.json())
    return {text for text, times in asked.items() if text.startswith("twice ") and times > 1}
