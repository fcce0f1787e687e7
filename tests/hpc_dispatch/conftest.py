"""What the tests of dispatch share: leases to speak under, and the real program with a real broker."""

import asyncio
import contextlib
import datetime
import json
import os
import secrets
import select
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from stream_core import tickets
from stream_core.certificates import ensure_certificates
from stream_core.files import write_private
from stream_core.grpc_client import open_channel
from stream_core.rpc import hpc_dispatch_pb2 as pb
from stream_core.rpc import hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.broker import run_broker
from stream_core.testing.programs import Program, start

STANDIN = Path(__file__).with_name("standin_worker.py")
PATIENCE_S = 10.0

ENVIRONMENT = {
    "TICK_S": "0.05",
    "LOST_AFTER_S": "1.0",
    "REMOVE_AFTER_S": "0.5",
    "START_MARGIN_S": "2.0",
    "BACKOFF_FIRST_S": "0.1",
    "STOP_GRACE_S": "0.5",
}

POOL = {
    "model": {"id": "tiny", "upstream": "tiny-q4", "context_window": 4096, "demo": True},
    "engine_url": "http://127.0.0.1:9",
    "engine_start_timeout_s": 5.0,
}


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Waits until a process that need not be a child of this one has ended."""

    def wait(pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
        finally:
            os.close(descriptor)

    return wait


@dataclass
class Watch:
    """A gateway's view: every snapshot of the pool that came."""

    seen: list[pb.Pool] = field(default_factory=list)
    ended: bool = False
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self, call: Any) -> None:
        async for pool in call:
            async with self._news:
                self.seen.append(pool)
                self._news.notify_all()
        async with self._news:
            self.ended = True
            self._news.notify_all()

    async def until(self, wanted: Callable[[pb.Pool], bool]) -> pb.Pool:
        """Wait for a snapshot that is as wanted; the newest one counts."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: bool(self.seen) and wanted(self.seen[-1]))
        except TimeoutError:
            raise AssertionError(f"never came; the last snapshot is {self.seen[-1:]}") from None
        return self.seen[-1]

    async def until_ended(self) -> None:
        """Wait until the server has ended the watch."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self.ended)


@dataclass
class Service:
    """The running program and how to speak with it."""

    program: Program
    stub: Any
    watch: Watch
    nats: Any
    folder: Path
    state_dir: Path

    async def worker(self, state: int = pb.WORKER_STATE_READY, *, other_than: bytes = b"") -> pb.Worker:
        """Wait until some worker is in a state."""

        def found(pool: pb.Pool) -> list[pb.Worker]:
            return [worker for worker in pool.workers if worker.state == state and worker.lease_id != other_than]

        return found(await self.watch.until(lambda pool: bool(found(pool))))[0]

    def facts(self, lease: bytes) -> dict[str, Any]:
        """What the stand-in of a lease left about itself."""
        return msgspec.json.decode((self.folder / f"{lease.hex()}.job").read_bytes())

    def logged(self) -> list[dict[str, Any]]:
        """What the program has logged so far."""
        return [json.loads(line) for line in self.program.log().splitlines()]

    async def command(self, lease: bytes, words: str) -> None:
        """Tell a stand-in what to do; returns when it has told dispatch."""
        await self.nats.request(f"test.{lease.hex()}", words.encode(), timeout=PATIENCE_S)


@pytest.fixture(scope="package")
def broker() -> Iterator[str]:
    with run_broker() as url:
        yield url


@pytest.fixture(scope="package")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    ensure_certificates(folder / "tls", ["hpc_dispatch", "gateway"], now=datetime.datetime.now(datetime.UTC))
    private, public = tickets.new_signing_key()
    write_private(folder / "ticket.key", private.encode())
    (folder / "ticket.pub").write_text(public)
    write_private(folder / "lease.key", b"5e" * 32)
    return folder


@pytest.fixture
def kept(secrets_folder: Path) -> dict[str, str]:
    """Settings with a bucket of this test's own: leases and workers outlive the program."""
    return {"LEASE_KEY_FILE": str(secrets_folder / "lease.key"), "LEASE_BUCKET": f"test-{secrets.token_hex(4)}"}


@pytest.fixture
def environment(broker: str, secrets_folder: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Builds the program's environment for one pool."""

    def build(
        pool: dict[str, Any] | None = None, mode: str = "ready", broker_url: str = broker, **extra: str
    ) -> dict[str, str]:
        (tmp_path / "mode").write_text(mode)
        deployment = {
            "tiers": [{"name": "hpc", "kind": "hpc"}],
            "clusters": [{"name": "here", "pools": [POOL | (pool or {})]}],
        }
        (tmp_path / "stream.yaml").write_text(json.dumps(deployment))
        tls = secrets_folder / "tls"
        fields = ENVIRONMENT | {
            "TLS__CA": f"{tls}/ca.pem",
            "TLS__CERTIFICATE": f"{tls}/hpc_dispatch.pem",
            "TLS__KEY": f"{tls}/hpc_dispatch.key",
            "NATS__URL": broker_url,
            "TICKET_PRIVATE_KEY_FILE": f"{secrets_folder}/ticket.key",
            "RELAYS": '["ws://127.0.0.1:1"]',
            "STATE_DIR": f"{tmp_path}/state",
            "WORKER_COMMAND": json.dumps([sys.executable, str(STANDIN), broker_url, str(tmp_path)]),
        }
        fields |= extra
        return {"STREAM_CONFIG": f"{tmp_path}/stream.yaml"} | {
            f"STREAM_HPC_DISPATCH__{name}": value for name, value in fields.items()
        }

    return build


@pytest.fixture
def service(
    environment: Callable[..., dict[str, str]], broker: str, secrets_folder: Path, tmp_path: Path
) -> Callable[..., Any]:
    """A context manager that runs the program and yields a `Service`."""
    tls = secrets_folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "gateway.pem", key=tls / "gateway.key")

    @contextlib.asynccontextmanager
    async def run(
        pool: dict[str, Any] | None = None, mode: str = "ready", broker_url: str = broker, **extra: str
    ) -> AsyncIterator[Service]:
        with start("stream_hpc_dispatch", env=environment(pool, mode, broker_url, **extra)) as program:
            client = await nats.connect(broker_url, reconnect_time_wait=0.1)
            async with open_channel(f"127.0.0.1:{program.ready['port']}", files) as channel:
                stub = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)
                watch = Watch()
                reading = asyncio.create_task(watch.read(stub.WatchPool(pb.WatchPoolRequest(gateway_id="test"))))
                try:
                    yield Service(program, stub, watch, client, tmp_path, tmp_path / "state")
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    await client.close()

    return run
