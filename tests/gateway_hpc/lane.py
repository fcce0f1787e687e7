"""A sealed lane of real parts: broker, relay, worker and scripted engine as processes; the gateway's channel here."""

import asyncio
import base64
import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.aio.msg import Msg

from stream_core import tickets
from stream_core.envelope.keys import PublicKey, open_secret_of, verify_announcement
from stream_core.ids import new_id, to_hex
from stream_core.settings import NatsSettings
from stream_core.testing import programs
from stream_core.testing.broker import run_broker
from stream_core.testing.engine import scripted_engine
from stream_core.wire import payloads, subjects
from stream_core.wire.frames import FrameType, split
from stream_core.wire.sender import MAX_PAYLOAD
from stream_core.wire.window import Limits
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.channel import Channel
from stream_gateway.pool import PooledWorker
from stream_gateway.sealed_answer import Patience, SealedAnswer
from stream_gateway.sealed_call import DEFAULT_WINDOW, SealedCall

__all__ = ["MAX_PAYLOAD", "Lease", "Parts", "announced", "ask", "channel", "parts", "programs", "read", "worker"]


@dataclass
class Lease:
    """A lease as hpc_dispatch would make it."""

    id: bytes = field(default_factory=new_id)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))


@dataclass
class Parts:
    """URLs of the running processes, and the lease's worker."""

    nats_url: str
    engine_url: str
    relay: programs.Program
    relay_url: str
    lease: Lease
    private_pem: str

    @property
    def ticket(self) -> str:
        """For the lease."""
        return tickets.issue(self.private_pem, lease_id=self.lease.id, now=time.time(), lifetime_s=600)

    def for_lease(self, lease: Lease) -> "Parts":
        """The same processes, another lease."""
        return dataclasses.replace(self, lease=lease)


@contextlib.contextmanager
def parts(folder: Path, *, relay_nats_url: str | None = None) -> Iterator[Parts]:
    """Broker, relay and engine; a worker is started by `worker`."""
    private_pem, public_pem = tickets.new_signing_key()
    (folder / "ticket.pub").write_text(public_pem)
    lease = Lease()
    with run_broker() as nats_url, scripted_engine() as engine_url:
        env = {
            "STREAM_RELAY__NATS__URL": relay_nats_url or nats_url,
            "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(folder / "ticket.pub"),
            "STREAM_RELAY__DRAIN_S": "0.2",
        }
        with programs.start("stream_relay", env=env) as relay:
            relay_url = f"ws://127.0.0.1:{relay.ready['port']}"
            yield Parts(nats_url, engine_url, relay, relay_url, lease, private_pem)


@contextlib.contextmanager
def worker(
    running: Parts,
    *,
    relay_url: str | None = None,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
    **changes: object,
) -> Iterator[programs.Program]:
    """A worker process of the parts' lease, attached to the scripted engine; `ready`: waited for until it is."""
    job = {
        "lease": to_hex(running.lease.id),
        "bootstrap_secret": base64.b64encode(running.lease.secret).decode(),
        "ticket": running.ticket,
        "relays": [relay_url or running.relay_url],
        "expires_unix_s": time.time() + 600,
        "models": [{"id": "scripted", "engine_model": "scripted", "context_window": 8192}],
        "engine": {"url": running.engine_url},
        **changes,
    }
    often = {"STREAM_WORKER__STATUS_INTERVAL_S": "0.2", "STREAM_WORKER__ANNOUNCE_INTERVAL_S": "0.2"}
    with programs.start(
        "stream_worker",
        env=often | dict(env or {}),
        stdin=json.dumps(job).encode(),
        ready_timeout_s=30.0 if ready else None,
    ) as program:
        yield program


async def announced(running: Parts) -> PooledWorker:
    """Wait for the worker's announcement, as hpc_dispatch does, and make what the pool would hold."""
    said = await announcement(running)
    return PooledWorker(
        lease_id=running.lease.id,
        cluster="test",
        models={model.id: OfferedModel(model.id, model.context_window) for model in said.models},
        engine_models={model.id: model.engine_model for model in said.models},
        key=PublicKey(said.mlkem768, said.x25519).load(),
        open_secret=open_secret_of(running.lease.secret, lease_id=running.lease.id),
        max_requests=said.max_requests,
    )


async def announcement(running: Parts) -> payloads.Announcement:
    """Wait for it, and verify it."""
    client = await nats.connect(running.nats_url)
    heard: asyncio.Future[payloads.Announcement] = asyncio.get_running_loop().create_future()

    async def receive(message: Msg) -> None:
        for frame in split(message.data):
            if frame.type is FrameType.ANNOUNCE and not heard.done():
                body = verify_announcement(frame.body, lease_id=running.lease.id, bootstrap_secret=running.lease.secret)
                heard.set_result(payloads.load(body, payloads.Announcement))

    await client.subscribe(subjects.lease_out(running.lease.id), cb=receive)
    try:
        async with asyncio.timeout(60):
            return await heard
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def channel(
    nats_url: str, patience: Patience | None = None, limits: Limits | None = None
) -> AsyncIterator[Channel]:
    """The gateway's end, connected."""
    gateway = Channel(NatsSettings(url=nats_url), new_id(), patience, limits)
    await gateway.start()
    try:
        async with asyncio.timeout(60):
            await gateway.wait_connected()
        yield gateway
    finally:
        await gateway.aclose()


async def ask(
    gateway: Channel,
    target: PooledWorker,
    script: dict[str, object],
    *,
    window: int = DEFAULT_WINDOW,
    **request: object,
) -> SealedAnswer:
    """Send one chat request down the lane and wait for the engine's first word."""
    call = SealedCall(
        lease_id=target.lease_id,
        worker_key=target.key,
        open_secret=target.open_secret,
        request_id=new_id(),
        gateway_id=gateway.gateway_id,
        secret=secrets.token_bytes(32),
        window=window,
    )
    body = {"model": "scripted", "stream": True, "messages": [], "script": script, **request}
    frames = call.open_frames(
        json.dumps(body).encode(),
        path="/v1/chat/completions",
        opened_at_ms=time.time_ns() // 1_000_000,
        headers={},
    )
    return await gateway.open(call, frames, first_token_timeout_s=20, idle_timeout_s=20)


async def read(answer: SealedAnswer) -> bytes:
    """Everything that came."""
    return b"".join([b"".join(batch) async for batch in answer])
