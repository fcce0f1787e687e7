"""The whole product, started as a user starts it: `stream up`, with ears on every hop."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from gateway_hpc.tampering import TamperingRelay, tampering_relay

from stream_core.testing import programs
from stream_core.testing.broker import free_port, run_broker
from stream_core.testing.recorder import Recorder, record_tcp

START_S = 60
STREAM = Path(sys.executable).with_name("stream")


@dataclass
class House:
    """A running product and what its hops have seen."""

    home: Path
    base_url: str
    api_key: str
    broker: Recorder
    relay: TamperingRelay
    engine: Recorder
    """Between the HPC worker and its engine."""
    process: subprocess.Popen[str]

    def log(self, program: str) -> str:
        """What a program has logged."""
        return (self.home / f"logs/{program}.log").read_text()


@contextlib.contextmanager
def relay_with_ears(target: str) -> Iterator[TamperingRelay]:
    """An honest relay in front of the real one that keeps every message, in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()
    held: list[TamperingRelay] = []

    async def serve() -> None:
        async with tampering_relay(target) as relay:
            held.append(relay)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield held[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def run_up(home: Path, *arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`stream up` until the block ends; ended as Ctrl-C ends it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_", "NATS_"))}
    environment |= {"STREAM_MODELS_DIR": str(home / "no-models"), "HF_HOME": str(home / "no-hub"), **(env or {})}
    process = subprocess.Popen(
        [str(STREAM), "up", "--home", str(home), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdout:
            process.stdout.close()


def screen(process: subprocess.Popen[str]) -> str:
    """What `stream up` prints until it is ready; fails with it when it ends before."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready in "):
            return "".join(lines)
    raise RuntimeError(f"stream up ended with {process.wait()}:\n{''.join(lines)}")


@contextlib.contextmanager
def run_house(folder: Path) -> Iterator[House]:
    """Start everything: broker, relay and the HPC engine each behind a recorder, the rest as `stream up` does."""
    home = folder / "home"
    with contextlib.ExitStack() as stack:
        nats = urlsplit(stack.enter_context(run_broker()))
        broker = stack.enter_context(record_tcp(str(nats.hostname), int(nats.port or 0)))
        settings = {"STREAM_ENGINE__MODEL": "demo", "STREAM_ENGINE__PARALLEL": "4"}
        engine = stack.enter_context(programs.start("stream_engine", env=settings))
        ears = stack.enter_context(record_tcp("127.0.0.1", engine.ready["port"]))
        relay_port = free_port()
        relay = stack.enter_context(relay_with_ears(f"ws://127.0.0.1:{relay_port}"))
        config = folder / "stream.yaml"
        model = {"id": "stream-demo", "context_window": engine.ready["context"], "demo": True}
        pool = {"model": model, "engine_url": f"http://127.0.0.1:{ears.port}"}
        config.write_text(yaml.safe_dump({"clusters": [{"name": "here", "pools": [pool]}]}))
        env = {
            "NATS_URL": f"nats://127.0.0.1:{broker.port}",
            "STREAM_RELAY__PORT": str(relay_port),
            "STREAM_HPC_DISPATCH__RELAYS": json.dumps([relay.url]),
        }
        process = stack.enter_context(run_up(home, "--port", "0", "--config", str(config), env=env))
        screen(process)
        port = json.loads((home / "run/gateway.json").read_text())["port"]
        key = (home / "api-key").read_text().strip()
        yield House(home, f"http://127.0.0.1:{port}/v1", key, broker, relay, ears, process)
