"""A real gateway process with keys, certificates and a deployment file, for tests to ask things of."""

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stream_core.api_keys import KeyFile, KeyRecord, dump_keys, new_key
from stream_core.certificates import ensure_certificates
from stream_core.openai.sse import EventSplitter
from stream_core.testing import programs
from stream_core.testing.programs import Program

SERVICES = ["gateway", "judge", "summarizer", "hpc_dispatch"]


def tls_env(program: str, folder: Path, name: str) -> dict[str, str]:
    """Environment that gives a program its certificate."""
    prefix = f"STREAM_{program.upper()}__TLS"
    return {
        f"{prefix}__CA": str(folder / "ca.pem"),
        f"{prefix}__CERTIFICATE": str(folder / f"{name}.pem"),
        f"{prefix}__KEY": str(folder / f"{name}.key"),
    }


def tier(name: str, base_url: str, **fields: Any) -> dict[str, Any]:
    """A tier of kind http with one model, unless `fields` says otherwise."""
    return {
        "name": name,
        "base_url": f"{base_url}/v1",
        "privacy": "restricted",
        "models": [{"id": f"{name}-model", "upstream": "scripted"}],
        **fields,
    }


@dataclass
class Stage:
    """Files of one gateway."""

    folder: Path
    deployment: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """The keys themselves, by name."""
    records: list[KeyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        ensure_certificates(self.folder / "tls", SERVICES, now=datetime.datetime.now(datetime.UTC))
        self.add_key("all")
        self.write_deployment()

    def add_key(self, name: str, **fields: Any) -> str:
        """Add a key and write the file."""
        key, record = new_key(name, now=time.time(), **fields)
        self.keys[name] = key
        self.records.append(record)
        self.write_keys()
        return key

    def write_keys(self) -> None:
        """Write the key file as `stream keys` does: in one move."""
        _replace(self.folder / "keys.json", dump_keys(KeyFile(self.records)))

    def write_deployment(self, text: str | None = None) -> None:
        """Write the deployment file."""
        _replace(self.folder / "stream.yaml", (text or yaml.safe_dump(self.deployment)).encode())

    def env(self, **settings: Any) -> dict[str, str]:
        """Environment of the gateway."""
        fields = {
            "port": 0,
            "keys_file": self.folder / "keys.json",
            "reload_interval_s": 0.05,
            "probe_interval_s": 0.2,
            **settings,
        }
        return {
            "STREAM_CONFIG": str(self.folder / "stream.yaml"),
            **tls_env("gateway", self.folder / "tls", "gateway"),
            **{f"STREAM_GATEWAY__{name.upper()}": str(value) for name, value in fields.items()},
        }

    @contextlib.contextmanager
    def run(self, extra: Mapping[str, str] | None = None, **settings: Any) -> Iterator["Gateway"]:
        """Run the gateway until the block ends.

        Args:
            extra: more environment.
            settings: of the gateway.
        """
        with programs.start("stream_gateway", env={**self.env(**settings), **(extra or {})}) as program:
            yield Gateway(program, self)


@dataclass
class Gateway:
    """A running gateway."""

    program: Program
    stage: Stage

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.program.ready["port"])

    @property
    def url(self) -> str:
        """Base URL, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    def headers(self, key: str = "all") -> dict[str, str]:
        """Headers of a request with one of the stage's keys."""
        return {"authorization": f"Bearer {self.stage.keys[key]}"}

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Log lines with this message."""
        found = []
        for line in self.program.log().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("msg") == message:
                    found.append(record)
        return found


def chat(model: str = "auto", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream, **fields}


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)


async def configure(gateway: Gateway, *tiers: dict[str, Any], **sections: Any) -> None:
    """Give a running gateway other tiers and sections of the deployment, and wait until it has them."""
    before = len(gateway.lines("deployment read again"))
    gateway.stage.deployment = {"tiers": list(tiers), **sections}
    gateway.stage.write_deployment()
    await until(lambda: len(gateway.lines("deployment read again")) > before)


async def until(check: Callable[[], bool]) -> None:
    """Ask again and again until the answer is yes, for at most a minute."""
    for _ in range(3_000):
        if check():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")


def events_of(body: bytes) -> list[bytes]:
    """Cut a stream into its events."""
    splitter = EventSplitter()
    events = splitter.feed(body)
    assert not splitter.rest(), "a stream ends with a whole event"
    return events


def error_of(body: bytes) -> dict[str, Any]:
    """The error that an OpenAI error body, or a stream's last event, carries; it has exactly OpenAI's four fields."""
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


@contextlib.asynccontextmanager
async def connection(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the gateway, closed to the last byte at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
