"""What is measured on a lane, across the WAN or on loopback: time to first token, and tokens per second."""

import asyncio
import json
import time

import aiohttp
from gateway_hpc import lane

from stream_gateway.channel import Channel
from stream_gateway.pool import PooledWorker
from stream_gateway.sealed_call import DEFAULT_WINDOW

Script = dict[str, object]
_TOKEN = b'"content":" token"'


async def ask_engine(url: str, script: Script, **request: object) -> tuple[float, bytes]:
    """Put a question to the engine itself: milliseconds to its first bytes, and all of them."""
    body = {"model": "scripted", "stream": True, "messages": [], "script": script, **request}
    started = time.perf_counter()
    async with (
        aiohttp.ClientSession(headers={"content-type": "application/json"}) as session,
        session.post(f"{url}/v1/chat/completions", data=json.dumps(body)) as response,
    ):
        first = await response.content.readany()
        return (time.perf_counter() - started) * 1000, first + await response.read()


async def first_token_ms(gateway: Channel, target: PooledWorker, script: Script) -> float:
    """Milliseconds from the question to the first bytes of the answer, which is then read to its end."""
    started, first = time.perf_counter(), 0.0
    answer = await lane.ask(gateway, target, script)
    async for _ in answer:
        first = first or time.perf_counter() - started
    return first * 1000


async def tokens_per_s(
    gateway: Channel, target: PooledWorker, script: Script, *, streams: int, window: int = DEFAULT_WINDOW
) -> float:
    """Tokens of all streams together, by the time until the last one is whole."""

    async def one() -> int:
        return (await lane.read(await lane.ask(gateway, target, script, window=window))).count(_TOKEN)

    started = time.perf_counter()
    tokens = sum(await asyncio.gather(*(one() for _ in range(streams))))
    return tokens / (time.perf_counter() - started)


async def steady_tokens_per_s(gateway: Channel, target: PooledWorker, script: Script, *, after: int) -> float:
    """Tokens of one stream a second, once `after` tokens are here: the start of TCP and of the window is over."""
    tokens, counted_from, started = 0, 0, 0.0
    async for data in await lane.ask(gateway, target, script):
        tokens += b"".join(data).count(_TOKEN)
        if not started and tokens >= after:
            counted_from, started = tokens, time.perf_counter()
    return (tokens - counted_from) / (time.perf_counter() - started)
