"""A gateway with its broker, before an engine that keeps what it is asked; and a way to say anything to it."""

import asyncio
import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from gateway.stage import Gateway, Stage, tier

from stream_core.files import write_private
from stream_core.testing.broker import Broker

PATIENCE_S = 20


@dataclass
class Engine:
    """What it was asked."""

    url: str = ""
    failing: bytes = b""
    """It is not ready for requests with this text."""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[list[tuple[str, str]]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer anything alike."""
        self.headers.append(list(request.headers.items()))
        self.bodies.append(await request.read())
        if request.path.endswith("/models"):
            return web.json_response({"data": []})
        if self.failing and self.failing in self.bodies[-1]:
            return web.json_response({"error": {"message": "busy"}}, status=503)
        message = {"role": "assistant", "content": "yes"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})

    def was_asked(self, mark: str) -> bool:
        """Whether a text reached it."""
        return any(mark.encode() in body for body in self.bodies)


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Run one in a thread of its own."""
    made = Engine()
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", made.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
        loop.close()


@dataclass
class Fort:
    """The running parts."""

    gateway: Gateway
    engine: Engine
    broker: Broker

    def head(self, path: str = "/v1/chat/completions", key: str = "all", method: str = "POST", **headers: str) -> bytes:
        """The head of a request, without its last line end."""
        lines = [f"{method} {path} HTTP/1.1", "host: gateway", f"authorization: Bearer {self.gateway.stage.keys[key]}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n"

    def request(self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str) -> bytes:
        """A whole request, after which the connection closes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content_type": "application/json", "content_length": str(len(data)), "connection": "close"}
        return self.head(path, **{**fields, **headers}) + b"\r\n" + data

    async def say(self, data: bytes, *, patience_s: float = PATIENCE_S) -> bytes:
        """Send bytes as they are; all that comes until the gateway closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
            async with asyncio.timeout(patience_s):
                return await _all_of(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    came = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            came += data
    return came


def status_of(answer: bytes) -> int:
    """The status of an answer's first line."""
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> dict[str, Any]:
    """What an answer's error body says; it has OpenAI's four fields."""
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """A chat request that is not streamed."""
    return {"model": "local", "messages": [{"role": "user", "content": text}], **fields}


@contextlib.contextmanager
def run_fort(folder: Path, **settings: Any) -> Iterator[Fort]:
    """Run it until the block ends; `settings` are the gateway's."""
    (folder / "nats").mkdir()
    broker = Broker(folder / "nats")
    broker.start()
    try:
        with engine() as played:
            able = ["tools", "json_schema", "logprobs", "tokenize", "chat", "embeddings", "moderations"]
            models = [{"id": "m", "context_window": 1_000_000, "modalities": ["text", "image"], "capabilities": able}]
            stage = Stage(folder, {"tiers": [tier("local", played.url, models=models)]})
            stage.add_key("other")
            write_private(folder / "batch.key", secrets.token_hex(32).encode())
            environment = {
                "STREAM_GATEWAY__NATS__URL": broker.url,
                "STREAM_GATEWAY__BATCH_KEY_FILE": str(folder / "batch.key"),
                "STREAM_GATEWAY__BATCHES__LOOK_S": "0.2",
            }
            with stage.run(environment, **settings) as gateway:
                yield Fort(gateway, played, broker)
    finally:
        broker.stop()
