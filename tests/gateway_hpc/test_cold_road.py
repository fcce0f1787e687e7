"""The whole road with a pool that keeps no worker ready: the first request wakes it, whether it names it or not."""

import asyncio

import aiohttp
import pytest
import yaml

from stream_core.testing.road import MODEL, Road, run_road

pytestmark = pytest.mark.process


async def ask(road: Road, session: aiohttp.ClientSession, model: str) -> tuple[dict[str, str], list[bytes]]:
    """A streamed answer: (headers, its events and comments)."""
    body = {
        "model": model,
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}],
        "script": {"tokens": 5, "text": " w{n}"},
    }
    async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
        assert response.status == 200
        return dict(response.headers), [event for event in (await response.read()).split(b"\n\n") if event]


async def state(road: Road, session: aiohttp.ClientSession, tier: str = "hpc") -> str | None:
    """What /v1/tiers says of a tier."""
    async with session.get(f"{road.gateway_url}/v1/tiers") as response:
        return {told["id"]: told["state"] for told in (await response.json())["data"]}.get(tier)


async def is_in(road: Road, session: aiohttp.ClientSession, wanted: str, *, tier: str = "hpc") -> None:
    """Wait until a tier is in a state."""
    while await state(road, session, tier) != wanted:  # noqa: ASYNC110  (another process tells nobody)
        await asyncio.sleep(0.05)


async def test_a_named_cold_pool_is_woken(tmp_path):
    """Nothing runs; a stream that names the tier is told that it waits, until a real worker answers it."""
    pool = {"min_ready": 0, "max_workers": 1}
    env = {"STREAM_GATEWAY__HEARTBEAT_S": "0.3"}
    with run_road(tmp_path, pool=pool, env=env) as road:
        headers = {"authorization": f"Bearer {road.api_key}"}
        async with asyncio.timeout(120), aiohttp.ClientSession(headers=headers) as session:
            await is_in(road, session, "cold")
            assert road.workers() == []
            headers, events = await ask(road, session, "hpc")
            assert headers["x-stream-tier"] == "hpc"
            comments = [event for event in events if event.startswith(b":")]
            assert comments[0].startswith(b": waiting for a worker: ")
            assert len(comments) > 2
            assert comments[-1].startswith(b": answered by hpc/scripted on road")
            assert events[len(comments) :][-1] == b"data: [DONE]"
            assert b'" w4"' in b"".join(events)
            assert len(road.workers()) == 1
            assert await state(road, session) == "hot"
            headers, events = await ask(road, session, "hpc")
            assert headers["x-stream-cluster"] == "road"
            assert not any(event.startswith(b":") for event in events)


@pytest.mark.parametrize("policy", ["wait", "next"])
async def test_auto_wakes_a_cold_pool(tmp_path, policy):
    """`auto` waits for it, or has the next tier answer while it starts; then it is the one that answers."""
    pool = {"min_ready": 0, "max_workers": 1, "cold_start": policy}
    with run_road(tmp_path, pool=pool) as road:
        path = tmp_path / "stream.yaml"
        deployment = yaml.safe_load(path.read_text())
        far = {"name": "far", "base_url": f"{road.engine_url}/v1", "models": [{"id": MODEL}]}
        deployment["tiers"].append(far)
        path.write_text(yaml.safe_dump(deployment))
        headers = {"authorization": f"Bearer {road.api_key}"}
        async with asyncio.timeout(120), aiohttp.ClientSession(headers=headers) as session:
            await is_in(road, session, "hot", tier="far")
            await is_in(road, session, "cold")
            headers, events = await ask(road, session, "auto")
            if policy == "wait":
                assert events[0].startswith(b": waiting for a worker: ")
            else:
                assert headers["x-stream-tier"] == "far"
                assert "hpc is cold, a worker is asked for" in headers["x-stream-reason"]
            assert events[-1] == b"data: [DONE]"
            await is_in(road, session, "hot")
            headers, _ = await ask(road, session, "auto")
            assert headers["x-stream-tier"] == "hpc"
