"""Connections that an engine has closed meanwhile are not its answer."""

import asyncio
import contextlib

import aiohttp
import pytest

from stream_worker.engine import post

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
AT_ONCE = 4


@contextlib.asynccontextmanager
async def engine(answers: int):
    """Says that it keeps a connection, and resets it when it is used again; after so many answers always."""
    left, waiting = answers, asyncio.Barrier(AT_ONCE)

    async def serve(reader, writer):
        nonlocal left
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"body")
            if left > 0:
                left -= 1
                if left >= answers - AT_ONCE:
                    await waiting.wait()  # as many connections are kept as there were questions at once
                writer.write(ANSWER)
                await writer.drain()
                await reader.read(1)  # the next question comes, and is not answered
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ask(session, url):
    async with await post(session, url, b"body", {}) as response:
        return await response.read()


async def test_kept_connections_that_are_closed_are_passed_over():
    """However many of them are kept, the question reaches the engine."""
    async with engine(answers=AT_ONCE + 1) as url, aiohttp.ClientSession() as session:
        assert await asyncio.gather(*(ask(session, url) for _ in range(AT_ONCE))) == [b"ok"] * AT_ONCE
        assert await ask(session, url) == b"ok"


async def test_an_engine_that_loses_every_connection_is_an_error():
    """It is not asked for ever."""
    async with engine(answers=0) as url, aiohttp.ClientSession() as session, asyncio.timeout(60):
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await ask(session, url)
