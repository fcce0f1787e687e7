"""Clients of a whole road, and what its programs have logged."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

import aiohttp

MESSAGES = [{"role": "user", "content": "hi"}]


@dataclass
class Client:
    """One client's stream."""

    body: bytes = b""
    status: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, road, session, script):
        asked = {"model": "hpc", "stream": True, "messages": MESSAGES, "script": script}
        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=asked) as response:
            self.status = response.status
            async for data in response.content.iter_any():
                self.body += data
                self.began.set()


@contextlib.asynccontextmanager
async def clients(road):
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        headers={"authorization": f"Bearer {road.api_key}"}, connector=connector
    ) as session:
        yield session


async def undisturbed(road, session, script):
    """The engine's own answer."""
    asked = {"model": "scripted", "stream": True, "messages": MESSAGES, "script": {**script, "interval_ms": 0}}
    async with session.post(f"{road.engine_url}/v1/chat/completions", json=asked) as response:
        return await response.read()


async def answer(road, session):
    """One short request; its status."""
    asked = {"model": "hpc", "messages": MESSAGES, "script": {"tokens": 3}}
    async with session.post(f"{road.gateway_url}/v1/chat/completions", json=asked) as response:
        await response.read()
        return response.status


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.05)  # other processes tell nobody


def logged(program, message):
    lines = [json.loads(line) for line in program.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["msg"].startswith(message)]
