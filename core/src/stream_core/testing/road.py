"""The whole HPC road as real processes, with a scripted engine at its end."""

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from stream_core import tickets
from stream_core.api_keys import KeyFile, dump_keys, new_key
from stream_core.certificates import ensure_certificates, write_private
from stream_core.testing import programs
from stream_core.testing.broker import run_broker
from stream_core.testing.engine import MODEL, scripted_engine

_READY_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Road:
    """Where to ask, and the processes by name."""

    gateway_url: str
    engine_url: str
    api_key: str
    pids: dict[str, int]
    gateway: programs.Program


@contextlib.contextmanager
def run_road(folder: Path) -> Iterator[Road]:
    """Start broker, engine, relay, hpc_dispatch with one worker, and gateway, until the block ends."""
    ensure_certificates(folder / "tls", ["gateway", "hpc_dispatch"], now=datetime.datetime.now(datetime.UTC))
    private_pem, public_pem = tickets.new_signing_key()
    write_private(folder / "ticket.key", private_pem.encode())
    write_private(folder / "ticket.pub", public_pem.encode())
    key, record = new_key("road", now=time.time())
    write_private(folder / "keys.json", dump_keys(KeyFile([record])))
    with contextlib.ExitStack() as stack:
        nats_url = stack.enter_context(run_broker())
        engine_url = stack.enter_context(scripted_engine())
        config = folder / "stream.yaml"
        config.write_text(yaml.safe_dump(_deployment(engine_url)))
        relay = stack.enter_context(programs.start("stream_relay", env=_relay(folder, nats_url)))
        relay_url = f"ws://127.0.0.1:{relay.ready['port']}"
        dispatch = stack.enter_context(
            programs.start("stream_hpc_dispatch", env=_dispatch(folder, nats_url, config, relay_url))
        )
        gateway = stack.enter_context(
            programs.start("stream_gateway", env=_gateway(folder, nats_url, config, dispatch.ready["port"]))
        )
        url = f"http://127.0.0.1:{gateway.ready['port']}"
        yield Road(url, engine_url, key, {"gateway": gateway.process.pid, "relay": relay.process.pid}, gateway)


async def wait_hot(road: Road) -> None:
    """Wait until the hpc tier answers."""
    deadline = time.monotonic() + _READY_S
    headers = {"authorization": f"Bearer {road.api_key}"}
    body = {"model": "hpc", "messages": [{"role": "user", "content": "hi"}]}
    async with aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
                if response.status == 200:  # noqa: PLR2004  (HTTP's own number)
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the hpc tier does not answer: {await response.text()}")
            await asyncio.sleep(_POLL_S)


def _tls(folder: Path, name: str) -> dict[str, str]:
    prefix = f"STREAM_{name.upper()}__TLS__"
    return {
        f"{prefix}CA": str(folder / "tls/ca.pem"),
        f"{prefix}CERTIFICATE": str(folder / f"tls/{name}.pem"),
        f"{prefix}KEY": str(folder / f"tls/{name}.key"),
    }


def _relay(folder: Path, nats_url: str) -> dict[str, str]:
    return {
        "STREAM_RELAY__NATS__URL": nats_url,
        "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(folder / "ticket.pub"),
        "STREAM_RELAY__DRAIN_S": "0.2",
    }


def _dispatch(folder: Path, nats_url: str, config: Path, relay_url: str) -> dict[str, str]:
    return {
        "STREAM_CONFIG": str(config),
        "STREAM_HPC_DISPATCH__LISTEN": "127.0.0.1:0",
        "STREAM_HPC_DISPATCH__NATS__URL": nats_url,
        "STREAM_HPC_DISPATCH__TICKET_PRIVATE_KEY_FILE": str(folder / "ticket.key"),
        "STREAM_HPC_DISPATCH__RELAYS": json.dumps([relay_url]),
        "STREAM_HPC_DISPATCH__STATE_DIR": str(folder / "dispatch"),
        **_tls(folder, "hpc_dispatch"),
    }


def _gateway(folder: Path, nats_url: str, config: Path, dispatch_port: int) -> dict[str, str]:
    return {
        "STREAM_CONFIG": str(config),
        "STREAM_GATEWAY__PORT": "0",
        "STREAM_GATEWAY__NATS__URL": nats_url,
        "STREAM_GATEWAY__KEYS_FILE": str(folder / "keys.json"),
        "STREAM_GATEWAY__DISPATCH_TARGET": f"127.0.0.1:{dispatch_port}",
        **_tls(folder, "gateway"),
    }


def _deployment(engine_url: str) -> dict[str, object]:
    model = {"id": MODEL, "context_window": 131_072}
    return {
        "tiers": [{"name": "hpc", "kind": "hpc", "privacy": "restricted"}],
        "clusters": [{"name": "road", "pools": [{"model": model, "engine_url": engine_url}]}],
    }
