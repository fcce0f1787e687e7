"""The whole road with two clusters of one model: one of them dies under load, and no client sees an error."""

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from stream_core.testing.road import Road, run_road, wait_hot

pytestmark = pytest.mark.process
STREAMS = 16
MESSAGES = [{"role": "user", "content": "count"}]
SCRIPT = {"continue": "llama", "tokens": 120, "text": " w{n}", "interval_ms": 40}


@pytest.fixture
def road(tmp_path) -> Iterator[Road]:
    """Broker, two relays, dispatch, a worker on each of two clusters, scripted engine and gateway."""
    with run_road(tmp_path, relays=2, clusters=("alpha", "beta")) as running:
        asyncio.run(wait_hot(running, workers=2))
        yield running


def normal(body: bytes) -> list[object]:
    """The events, without the mark that says how often an answer went on elsewhere."""
    events = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    chunks = [event if event == b"[DONE]" else json.loads(event) for event in events]
    for chunk in chunks:
        if isinstance(chunk, dict):
            chunk.pop("stream", None)
    return chunks


async def test_a_cluster_is_killed_under_load(road):
    """All of a cluster's workers and its relay are killed at once: all streams and new requests are answered whole."""
    began = asyncio.Barrier(STREAMS + 1)
    headers = {"authorization": f"Bearer {road.api_key}"}
    connector = aiohttp.TCPConnector(limit=0)

    async def ask(session: aiohttp.ClientSession) -> tuple[str, bytes]:
        body = {"model": "hpc", "stream": True, "messages": MESSAGES, "script": SCRIPT}
        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            got = b""
            waited = False
            async for data in response.content.iter_any():
                got += data
                if not waited:
                    waited = True
                    await began.wait()
            return response.headers["x-stream-cluster"], got

    async def short(session: aiohttp.ClientSession, model: str = "hpc") -> tuple[int, str | None]:
        body = {"model": model, "messages": MESSAGES, "script": {"tokens": 2}}
        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
            await response.read()
            return response.status, response.headers.get("x-stream-cluster")

    async with asyncio.timeout(180), aiohttp.ClientSession(headers=headers, connector=connector) as session:
        whole = {"model": "scripted", "stream": True, "messages": MESSAGES, "script": {**SCRIPT, "interval_ms": 0}}
        async with session.post(f"{road.engine_url}/v1/chat/completions", json=whole) as response:
            expected = await response.read()
        asking = [asyncio.create_task(ask(session)) for _ in range(STREAMS)]
        await began.wait()
        (road.folder / "down-alpha").touch()
        doomed = road.workers_of("alpha")
        relay = road.relays[road.relay_in_use(doomed[0])]
        for worker in doomed:
            worker.kill()
        relay.process.kill()
        meanwhile = [await short(session) for _ in range(10)]
        answers = await asyncio.gather(*asking)
        after = await short(session, "hpc/beta/scripted")
        # The named cluster is never replaced by the other.
        status, _ = await short(session, "hpc/alpha/scripted")
    assert meanwhile == [(200, "beta")] * 10
    assert {cluster for cluster, _ in answers} == {"alpha", "beta"}
    for cluster, body in answers:
        assert normal(body) == normal(expected)
        assert (body == expected) == (cluster == "beta")
        assert (b'"continued":1' in body) == (cluster == "alpha")
    assert after == (200, "beta")
    assert status == 503
