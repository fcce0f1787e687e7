"""Interactive requests come first: while one waits, no line of a batch is begun, at no replica."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batches.press import Press, eventually, gateway_env, jsonl, lines_of, reach, request, start, upload
from gateway.stage import Gateway, chat

pytestmark = pytest.mark.process
LINES = 200


@pytest.fixture
def pair(tmp_path: Path, engine: str) -> Iterator[tuple[Press, Gateway]]:
    """A gateway that runs no batches, and a replica that does nothing else."""
    with contextlib.ExitStack() as stack:
        press = stack.enter_context(Press.running(tmp_path, engine, run=False))
        runner = stack.enter_context(press.stage.run(gateway_env(tmp_path, press.broker.url, max_concurrency=8)))
        yield press, runner


async def _begun(session: aiohttp.ClientSession, engine: str) -> list[dict[str, Any]]:
    async with session.get(f"{engine}/requests") as response:
        return list(await response.json())


async def test_batches_wait(pair: tuple[Press, Gateway], engine: str) -> None:
    """A request that waits at one gateway stops the lines of the other; they go on after its first byte."""
    press, runner = pair
    async with press.client() as client, aiohttp.ClientSession(headers=press.gateway.headers()) as session:
        lines = [request(f"r{n}", script={"delay_ms": 100, "mark": "line"}) for n in range(LINES)]
        made = await start(client, await upload(client, jsonl(*lines)))
        await reach(client, made.id, lambda b: b.request_counts is not None and b.request_counts.completed > 10)
        ask = chat("local", script={"delay_ms": 4_000, "tokens": 1, "mark": "interactive"})
        asked = asyncio.create_task(session.post(f"{press.gateway.url}/v1/chat/completions", json=ask))
        await eventually(lambda: bool(runner.lines("batches wait: interactive requests do")))
        # What runs is finished; nothing is begun until the answer comes: more than forty times as many could be.
        held = runner.lines("batches wait: interactive requests do")[0]
        seen = await _begun(session, engine)
        assert not asked.done()
        response = await asked
        assert response.status == 200
        assert not runner.lines("batches go on")
        assert len(await _begun(session, engine)) <= len(seen) + held["running"]
        response.close()
        await eventually(lambda: bool(runner.lines("batches go on")))
        assert held["limit"] < 8
        batch = await reach(client, made.id)
        assert batch.status == "completed"
        assert len(await lines_of(client, batch.output_file_id)) == LINES
        # The gateway without a runner has run none of them.
        assert {line["stream"] for line in press.gateway.lines("request")} == {True}
