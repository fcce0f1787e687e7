"""What the suites run against: a gateway with its broker, in front of the player, and of the embedded engine."""

import asyncio
import contextlib
import http.client
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from conformance import player
from gateway.stage import Gateway, Stage, tier

from stream_core.files import write_private
from stream_core.testing import programs
from stream_core.testing.broker import Broker

PATIENCE_S = 120


@dataclass(frozen=True)
class House:
    """The running parts."""

    gateway: Gateway

    def environment(self) -> dict[str, str]:
        """What a suite is told: where, with which key, and the names of models."""
        key = self.gateway.stage.keys["all"]
        return {
            "CONFORMANCE_URL": self.gateway.url,
            "OPENAI_BASE_URL": f"{self.gateway.url}/v1",
            "OPENAI_API_KEY": key,
            "ANTHROPIC_BASE_URL": self.gateway.url,
            "ANTHROPIC_API_KEY": key,
            "OPENAI_MODEL": "play",
        }


@contextlib.contextmanager
def played() -> Iterator[str]:
    """Run the player in a thread of its own; its base URL."""
    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        runner = web.AppRunner(player.app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def run_house(folder: Path) -> Iterator[House]:
    """Run it all until the block ends."""
    (folder / "nats").mkdir()
    (folder / "nothing").mkdir()
    nothing = str(folder / "nothing")
    broker = Broker(folder / "nats")
    broker.start()
    engine = {"STREAM_ENGINE__MODEL": "demo", "STREAM_MODELS_DIR": nothing, "HF_HUB_CACHE": nothing}
    try:
        with played() as url, programs.start("stream_engine", env=engine) as real:
            stage = Stage(folder, {"tiers": _tiers(url, str(real.ready["base_url"]).removesuffix("/v1"))})
            stage.add_key("admin", admin=True)
            write_private(folder / "batch.key", secrets.token_hex(32).encode())
            environment = {
                "STREAM_GATEWAY__NATS__URL": broker.url,
                "STREAM_GATEWAY__STATE_DIR": str(folder / "state"),
                "STREAM_GATEWAY__BATCH_KEY_FILE": str(folder / "batch.key"),
                "STREAM_GATEWAY__BATCHES__LOOK_S": "0.2",
            }
            with stage.run(environment) as gateway:
                # What is loaded after the start is there before a suite counts its seconds.
                asking = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
                asking.request("GET", "/openapi.json")
                asking.getresponse().read()
                asking.close()
                yield House(gateway)
    finally:
        broker.stop()


def _tiers(played_at: str, engine: str) -> list[dict[str, Any]]:
    able = ["tools", "json_schema", "logprobs", "tokenize"]
    models = [
        {"id": name, "capabilities": able, "modalities": ["text", "image"], "context_window": 32_768}
        for name in ("play", "play-two")
    ]
    return [
        tier("stage", played_at, models=models),
        tier("vectors", played_at, models=[{"id": "vectors", "capabilities": ["embeddings"]}]),
        tier(
            "demo",
            engine,
            models=[{"id": "demo", "upstream": "stream-demo", "capabilities": [*able, "completions"]}],
        ),
    ]
