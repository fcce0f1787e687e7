"""What an answer costs that outlives its worker: limits and ledger count it once, and all of it."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from gateway.stage import until
from gateway_hpc import lane
from gateway_hpc.dispatched import Scene, cluster, scene
from gateway_hpc.gate import Gate, gate
from gateway_limits.bank import known
from gateway_limits.books import entry_of, requests

from stream_core.api_keys import Limits
from stream_core.audit.entries import Fields
from stream_core.files import write_private
from stream_core.rpc import hpc_dispatch_pb2

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
TOKENS, INTERVAL_MS, GIVEN = 40, 20, 6
"""Of an answer; `GIVEN` tokens come from the worker that is killed."""
SHARES = {"alpha": 4, "beta": 1}
"""GPUs that a request is charged on a cluster."""
PRICE = {"input": 1_000.0, "output": 1_000.0}
"""A tenth of a cent for a token."""
SCRIPT = {"continue": "vllm", "tokens": TOKENS, "text": " w{n}", "interval_ms": INTERVAL_MS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A gateway that keeps sums and ledger, with two clusters whose GPU time is charged differently."""
    folder = tmp_path_factory.mktemp("gateway")
    write_private(folder / "batch.key", secrets.token_hex(32).encode())
    kept = {"batch_key_file": folder / "batch.key", "state_dir": folder / "state"}
    with lane.parts(tmp_path_factory.mktemp("parts")) as parts:
        async with scene(folder, parts, **kept) as made:
            clusters = [cluster(name) for name in SHARES]
            for each in clusters:
                each["pools"][0]["model"] |= {"gpus": 2.0 * SHARES[each["name"]], "gpu_shared_by": 2.0, "price": PRICE}
            await until(lambda: bool(made.gateway.lines("files and batches are ready")))
            yield await made.play(*clusters)


@pytest_asyncio.fixture(loop_scope="module")
async def key(stage: Scene) -> str:
    """A key with limits that nothing here reaches; its name."""
    name = secrets.token_hex(4)
    stage.gateway.stage.add_key(name, limits=Limits(tokens_per_month=20_000, dollars_per_month=5.0))
    await known(stage.client, stage.gateway, name)
    return name


@dataclass
class Succession:
    """A worker on alpha whose answer stops after a few tokens, and one on beta that is not shown yet."""

    stage: Scene
    held: Gate
    first: hpc_dispatch_pb2.Worker
    heir: hpc_dispatch_pb2.Worker

    async def happen(self) -> None:
        """`kill -9` the first one in mid-answer, and wait until the answer goes on with the second one."""
        before = len(self.stage.gateway.lines("answer goes on"))
        await self.held.held.wait()
        await self.stage.dispatch.say("beta", "hot", self.heir)
        self.stage.programs[self.first.lease_id].process.kill()
        await self.stage.dispatch.say("alpha", "offline", reason="its nodes are gone")
        await until(lambda: len(self.stage.gateway.lines("answer goes on")) > before)


@pytest_asyncio.fixture(loop_scope="module")
async def succession(stage: Scene) -> AsyncIterator[Succession]:
    """Both run, and the first one is ready."""
    async with gate(stage.parts.engine_url, f'" w{GIVEN}"'.encode(), 1) as held:
        first, heir = await asyncio.gather(stage.hire("alpha", engine={"url": held.url}), stage.hire("beta"))
        await stage.dispatch.say("beta", "cold", reason="no worker runs")
        await stage.dispatch.say("alpha", "hot", first)
        await stage.told("/v1/models/hpc", lambda told: told["stream"]["state"] == "hot")
        yield Succession(stage, held, first, heir)


async def entry(stage: Scene, request_id: str) -> Fields:
    """The request's only entry in the store."""
    folder: Path = stage.gateway.stage.folder
    await until(lambda: any(fields.id == request_id for fields in requests(folder)))
    return entry_of(folder, request_id)


async def used(stage: Scene, key: str) -> tuple[int, float]:
    """What limits say is used, tokens and dollars: a request that asks for too much is told."""
    told = []
    for wanted in (50_000, 6_000):
        async with stage.ask(key=key, stream=False, max_tokens=wanted) as response:
            assert response.status == 429
            (found,) = re.findall(r": \$?([\d,.]+) used", json.loads(await response.read())["error"]["message"])
            told.append(float(found.replace(",", "")))
    return int(told[0]), told[1]


def text_of(body: bytes) -> str:
    """All deltas of a stream."""
    chunks = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [({}, TOKENS), ({"max_tokens": 20, "stream_options": {"include_usage": True}}, 20)],
    ids=["as it comes", "with a limit and usage"],
)
async def test_a_stream(stage: Scene, key: str, succession: Succession, fields: dict[str, Any], tokens: int) -> None:
    """Tokens and dollars are those of the whole answer, GPU time is each cluster's, and there is one entry."""
    async with stage.ask(key=key, script=SCRIPT, **fields) as response:
        assert response.status == 200
        await succession.happen()
        body = await response.read()
    assert text_of(body) == "".join(f" w{n}" for n in range(tokens))
    told = await entry(stage, response.headers["x-request-id"])
    assert (told.prompt_tokens, told.completion_tokens, told.counted) == (5, tokens, "engine")
    assert (told.status, told.ended, told.cluster) == (200, "complete", "alpha")
    assert "continued on beta" in told.reason
    assert told.nanodollars == (5 + tokens) * 1_000_000
    assert await used(stage, key) == (5 + tokens, (5 + tokens) / 1_000)
    # The engine pauses between tokens: each of the two had the request for so long at least.
    first, then = (GIVEN - 1) * INTERVAL_MS, (tokens - GIVEN - 1) * INTERVAL_MS
    assert told.total_ms is not None
    assert first * SHARES["alpha"] + then * SHARES["beta"] <= told.gpu_ms
    assert told.gpu_ms <= (told.total_ms - then) * SHARES["alpha"] + then * SHARES["beta"]


async def test_a_client_that_leaves_the_continuation(stage: Scene, key: str, succession: Succession) -> None:
    """It is charged what it was sent by both workers together, once, and what was reserved above that is free again."""
    body = b""
    async with stage.ask(key=key, script=SCRIPT | {"tokens": 100_000}) as response:
        await succession.happen()
        async for data in response.content.iter_any():
            body += data
            if b'" w40"' in body:
                break
    told = await entry(stage, response.headers["x-request-id"])
    assert (told.ended, told.counted, told.cluster) == ("client_gone", "events", "alpha")
    assert told.completion_tokens >= 40
    charged = told.prompt_tokens + told.completion_tokens
    assert told.nanodollars == charged * 1_000_000
    assert await used(stage, key) == (charged, charged / 1_000)
