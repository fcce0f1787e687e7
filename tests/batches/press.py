"""A gateway that runs batches: its broker with a store on disk, keys, files of requests."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from gateway.stage import Gateway, Stage, tier
from openai.types import Batch

from stream_core.files import write_private
from stream_core.testing.broker import Broker

ENDED = {"completed", "failed", "expired", "cancelled"}
PATIENCE_S = 120


@dataclass
class Press:
    """The running parts."""

    broker: Broker
    stage: Stage
    gateway: Gateway
    store: Path
    """Where the broker keeps its messages."""

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, engine: str, **settings: Any) -> Iterator["Press"]:
        """Run until the block ends; `settings` are fields of the gateway's section "batches"."""
        nats = folder / "nats"
        nats.mkdir()
        broker = Broker(nats)
        broker.start()
        try:
            tiers = [tier("local", engine), tier("cloud", engine, privacy="public")]
            stage = Stage(folder, {"tiers": tiers})
            stage.add_key("other")
            stage.add_key("cloud only", tiers=["cloud"])
            stage.add_key("doomed")
            write_private(folder / "batch.key", secrets.token_hex(32).encode())
            with stage.run(gateway_env(folder, broker.url, **settings)) as gateway:
                yield cls(broker, stage, gateway, nats / "store")
        finally:
            broker.stop()

    def client(self, key: str = "all") -> openai.AsyncOpenAI:
        """The official client with one of the keys."""
        return openai.AsyncOpenAI(base_url=f"{self.gateway.url}/v1", api_key=self.stage.keys[key], max_retries=0)


def gateway_env(folder: Path, nats_url: str, **settings: Any) -> dict[str, str]:
    """Environment of a gateway that runs batches, quick to notice what happens."""
    fields = {"look_s": 0.2, "redeliver_s": 2, **settings}
    return {
        "STREAM_GATEWAY__NATS__URL": nats_url,
        "STREAM_GATEWAY__BATCH_KEY_FILE": str(folder / "batch.key"),
        **{f"STREAM_GATEWAY__BATCHES__{name.upper()}": str(value) for name, value in fields.items()},
    }


def request(custom_id: str, text: str = "hello", *, model: str = "local", **body: Any) -> dict[str, Any]:
    """One request of a batch."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def jsonl(*lines: dict[str, Any] | str) -> bytes:
    """A file of requests; a string stands as it is."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines).encode()


async def upload(client: openai.AsyncOpenAI, content: bytes, **headers: str) -> str:
    """Upload a file of requests; its id."""
    made = await client.files.create(file=("requests.jsonl", content), purpose="batch", extra_headers=headers)
    return made.id


async def start(client: openai.AsyncOpenAI, file_id: str, window: str = "24h", **headers: str) -> Batch:
    """Make a batch."""
    return await client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window=window,  # type: ignore[arg-type]  # the library knows one, we any
        extra_headers=headers,
    )


async def reach(
    client: openai.AsyncOpenAI, id_: str, reached: Callable[[Batch], bool] = lambda batch: batch.status in ENDED
) -> Batch:
    """Ask for a batch until it is so; fails with what it was last."""
    batch = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                batch = await client.batches.retrieve(id_)
                if reached(batch):
                    return batch
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"not reached within {PATIENCE_S} s: {batch}") from error


async def eventually(reached: Callable[[], bool]) -> None:
    """Look until it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if reached():
                return
            await asyncio.sleep(0.02)


async def lines_of(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """Read a file of results."""
    if file_id is None:
        return []
    return [json.loads(line) for line in (await client.files.content(file_id)).content.splitlines()]
