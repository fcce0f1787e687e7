"""Two gateways that share a broker, and keys with limits."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from batches.press import gateway_env
from gateway.stage import Gateway, Stage, chat, tier, until

from stream_core.api_keys import Limits
from stream_core.files import write_private
from stream_core.testing.broker import Broker

PRICE = {"input": 1_000.0, "output": 1_000.0}
"""A tenth of a cent for a token: a few answers make dollars."""
LEASE_S = 3
ALIVE_S = 2


@dataclass
class Bank:
    """The running parts."""

    broker: Broker
    stage: Stage
    gateways: tuple[Gateway, Gateway]
    engine: str

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, engine: str) -> Iterator["Bank"]:
        """Run until the block ends: the first tier is free, the cloud has a price, `gpu` is charged GPU time."""
        nats = folder / "nats"
        nats.mkdir()
        broker = Broker(nats)
        broker.start()
        try:
            cloud = [{"id": "cloud-model", "upstream": "scripted", "price": PRICE}]
            gpu = [{"id": "gpu-model", "upstream": "scripted", "gpus": 4.0, "gpu_shared_by": 2.0}]
            able = ["chat", "embeddings", "moderations", "tokenize"]
            others = [{"id": "others-model", "upstream": "scripted", "capabilities": able}]
            tiers = [
                tier("local", engine),
                tier("gpu", engine, models=gpu),
                tier("others", engine, models=others),
                tier("cloud", engine, models=cloud),
            ]
            stage = Stage(folder, {"tiers": tiers})
            write_private(folder / "batch.key", secrets.token_hex(32).encode())
            with (
                stage.run(cls.env(folder, broker)) as first,
                stage.run(cls.env(folder, broker, run="false")) as second,
            ):
                yield cls(broker, stage, (first, second), engine)
        finally:
            broker.stop()

    @staticmethod
    def env(folder: Path, broker: Broker, **settings: Any) -> dict[str, str]:
        """Environment of one of its gateways."""
        return {
            **gateway_env(folder, broker.url, **settings),
            "STREAM_GATEWAY__LEASE_S": str(LEASE_S),
            "STREAM_GATEWAY__LEDGER_ALIVE_S": str(ALIVE_S),
            "STREAM_GATEWAY__STATE_DIR": str(folder / "state"),
        }

    async def key(self, **limits: Any) -> str:
        """Make a key with these limits, and wait until both gateways know it; its name."""
        name = secrets.token_hex(4)
        self.stage.add_key(name, limits=Limits(**limits))
        await self.is_known(name)
        return name

    async def member(self, project: dict[str, Any]) -> tuple[str, str]:
        """Make a project, and a user in it with a key of no project: (the key's name, the project's id)."""
        name = secrets.token_hex(4)
        self.stage.add_key(f"admin of {name}", admin=True)
        await self.is_known(f"admin of {name}")
        headers = self.gateways[0].headers(f"admin of {name}")
        async with aiohttp.ClientSession(f"{self.gateways[0].url}/admin/v1/", headers=headers) as session:

            async def made(path: str, **body: Any) -> dict[str, Any]:
                async with session.post(path, json=body) as answer:
                    assert answer.status == 200, await answer.read()
                    return dict(await answer.json())

            user, of = await made("users", name=name), await made("projects", name=name, **project)
            async with session.put(f"projects/{of['id']}/members/{user['id']}") as answer:
                assert answer.status == 200, await answer.read()
            self.stage.keys[name] = (await made("keys", name=name, user=user["id"]))["key"]
        await self.is_known(name)
        return name, of["id"]

    async def is_known(self, key: str) -> None:
        """Wait until both gateways know a key."""
        async with aiohttp.ClientSession() as session:
            for gateway in self.gateways:
                if gateway.program.process.poll() is None:
                    await known(session, gateway, key)


async def known(session: aiohttp.ClientSession, gateway: Gateway, key: str) -> None:
    """Wait until a gateway knows a key."""
    for _ in range(3_000):
        async with session.get(f"{gateway.url}/v1/tiers", headers=gateway.headers(key)) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the key is not known")


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """What it says is wrong."""
        return dict(json.loads(self.body)["error"])


async def ask(
    session: aiohttp.ClientSession,
    gateway: Gateway,
    key: str,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    **body: Any,
) -> Told:
    """Ask something, a short chat unless told otherwise."""
    if path == "/v1/chat/completions":
        body = chat(**{"model": "local", "stream": False, "max_tokens": 10, **body})
    headers = {**gateway.headers(key), **(headers or {})}
    async with session.post(f"{gateway.url}{path}", json=body, headers=headers) as answer:
        return Told(answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read())


async def ask_until(
    session: aiohttp.ClientSession, gateway: Gateway, key: str, enough: Callable[[Told], bool], **body: Any
) -> Told:
    """Ask again and again until the answer is so: what is settled is settled after the answer."""
    for _ in range(1_800):
        answer = await ask(session, gateway, key, **body)
        if enough(answer):
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"it is still {answer}")


@contextlib.asynccontextmanager
async def held(session: aiohttp.ClientSession, gateway: Gateway, key: str, **body: Any) -> Any:
    """A stream that has begun and does not end by itself, until the block ends."""
    script = {"tokens": 100_000, "interval_ms": 20, **body.pop("script", {})}
    request = chat(**{"model": "local", "max_tokens": 10, "script": script, **body})
    async with session.post(f"{gateway.url}/v1/chat/completions", json=request, headers=gateway.headers(key)) as answer:
        assert answer.status == 200, await answer.read()
        await answer.content.readany()
        yield answer


__all__ = ["LEASE_S", "PRICE", "Bank", "Told", "ask", "chat", "held", "known", "tier", "until"]
