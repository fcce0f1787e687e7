"""A budget for the cloud, with real gateways: real tokens at the models' prices, one sum for all replicas."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from batches.press import gateway_env
from gateway.stage import Gateway, Stage, chat, tier, until

from stream_core.files import write_private
from stream_core.testing.broker import Broker

pytestmark = pytest.mark.process
PRICE = {"input": 1_000.0, "output": 1_000.0}
"""A tenth of a cent for a token: a few answers make dollars."""
BUDGET = 3.0


@pytest.fixture
def replicas(tmp_path: Path, engine: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways whose policy prefers the cloud, as long as there is money."""
    (tmp_path / "nats").mkdir()
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        cloud = [{"id": "cloud-model", "upstream": "scripted", "price": PRICE}]
        tiers = [tier("local", engine, enabled=False), tier("cloud", engine, privacy="public", models=cloud)]
        stage = Stage(tmp_path, {"tiers": tiers, "policy": {"cloud_budget": BUDGET}})
        write_private(tmp_path / "batch.key", b"5" * 64)
        env = gateway_env(tmp_path, broker.url)
        with stage.run(env) as first, stage.run(env) as second:
            yield first, second
    finally:
        broker.stop()


async def ask(gateway: Gateway, model: str = "auto", **fields: Any) -> int:
    """Ask for a short answer; the status."""
    body = chat(model, max_tokens=200, **fields)
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=gateway.headers()) as answer,
    ):
        await answer.read()
        return answer.status


def cost(*gateways: Gateway) -> float:
    """Dollars of all answers, as the request lines tell."""
    return sum(line["dollars"] for gateway in gateways for line in gateway.lines("request"))


async def test_the_budget_holds_over_replicas(replicas: tuple[Gateway, Gateway]) -> None:
    """Until the money is spent `auto` goes to the cloud, then nowhere; who names the cloud still gets there."""
    first, second = replicas
    for gateway in replicas:
        await until(lambda gateway=gateway: bool(gateway.lines("files and batches are ready")))
    await known(first)
    await known(second)
    answered = 0
    for number in range(400):
        if await ask(first, stream=bool(number % 2)) != 200:
            break
        answered += 1
    assert answered > 1
    assert 0 < cost(first) <= BUDGET
    while await ask(second) == 200:
        pass
    assert cost(*replicas) <= BUDGET
    assert await ask(first, "cloud") == 200


async def known(gateway: Gateway) -> None:
    """Wait until the replica has read the sum."""
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            body = chat(max_tokens=200)
            async with session.post(f"{gateway.url}/v1/route", json=body, headers=gateway.headers()) as answer:
                if (await answer.json())["tier"] == "cloud":
                    return
            await asyncio.sleep(0.1)
    raise AssertionError("the sum was not read")
