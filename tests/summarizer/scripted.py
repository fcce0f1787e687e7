"""A scripted OpenAI-compatible server on loopback, in the test's own event loop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

Answer = str | web.Response | Callable[[web.Request], Any]


class Script:
    """What the server answers next, and what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = "The user said hello."
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def hang(self, _request: web.Request) -> web.Response:
        """Never answer; note when the caller goes away."""
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.asked.append(json.loads(await request.read()))
        self.arrived.set()
        if isinstance(self.answer, str):
            return web.json_response({"choices": [{"message": {"role": "assistant", "content": self.answer}}]})
        if isinstance(self.answer, web.Response):
            return self.answer
        return await self.answer(request)


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Script]:
    """Serve until the block ends."""
    script = Script()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", script.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield script
    finally:
        await runner.cleanup()
