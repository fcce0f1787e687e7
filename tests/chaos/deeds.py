"""What is done to a running road, and what its clients see of it."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import nats
import psutil

from stream_core.grpc_client import open_channel
from stream_core.ids import new_id
from stream_core.rpc import hpc_dispatch_pb2, hpc_dispatch_pb2_grpc
from stream_core.settings import TlsFiles
from stream_core.testing.road import Road
from stream_core.wire.frames import FrameType, encode
from stream_core.wire.subjects import lease_in

STREAMS = 64
SCRIPT = {"tokens": 160, "interval_ms": 25, "text": " {n}", "continue": "llama"}
"""Four seconds of numbered tokens: a lost, doubled or swapped one can be seen."""
FAST_SCRIPT = {"tokens": 6000, "per_write": 20, "interval_ms": 20, "text": " {n}"}
"""Four windows in six seconds: 64 of them are half of what this road carries at its best."""
SMALL_BROKER = 'max_pending: 2MB\nwrite_deadline: "500ms"'
"""64 windows are 16 MB: more than this broker and the kernel keep for a client that does not read."""
MESSAGES = [{"role": "user", "content": "hi"}]
PATIENCE_S = 60


@dataclass
class Watch:
    """What one client got."""

    body: bytearray = field(default_factory=bytearray)
    status: int = 0
    reason: str = ""
    pauses: list[float] = field(default_factory=list)
    """Seconds between two arrivals."""
    began: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Outcome:
    """Of one deed: answers that were not the undisturbed one, and the longest pauses in ms."""

    lost: int
    max_pause_ms: float
    p99_pause_ms: float
    complaints: list[str] = field(default_factory=list)


Deed = Callable[[Road], Awaitable[None]]


def client(road: Road) -> aiohttp.ClientSession:
    """A client of the gateway."""
    headers = {"authorization": f"Bearer {road.api_key}"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0, force_close=True))


async def watch(
    road: Road, session: aiohttp.ClientSession, seen: Watch, script: Mapping[str, object], model: str = "hpc"
) -> None:
    """One client's stream from its beginning to its end."""
    body = {"model": model, "stream": True, "messages": MESSAGES, "script": script}
    last = 0.0
    try:
        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
            seen.status = response.status
            seen.reason = response.headers.get("x-stream-reason", "")
            async for data, _ in response.content.iter_chunks():
                now = time.monotonic()
                if last:
                    seen.pauses.append(now - last)
                last = now
                seen.body += data
                seen.began.set()
    finally:
        seen.began.set()


async def undisturbed(road: Road, script: Mapping[str, object]) -> bytes:
    """The engine's own answer."""
    body = {"model": "scripted", "stream": True, "messages": MESSAGES, "script": script}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{road.engine_url}/v1/chat/completions", json=body) as response,
    ):
        return await response.read()


def text_of(body: bytes) -> bytes:
    """What a stream says, whatever its chunks are called: its deltas, joined, and whether it ended as it should."""
    text = []
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            text += [choice["delta"].get("content") or "" for choice in chunk.get("choices", ())]
    return "".join(text).encode() + body[-len(b"data: [DONE]\n\n") :]


def verbatim(body: bytes) -> bytes:
    """The bytes as they are."""
    return body


async def under_load(
    road: Road,
    deed: Deed,
    *,
    compare: Callable[[bytes], bytes] = verbatim,
    script: Mapping[str, object] = SCRIPT,
) -> Outcome:
    """Do a deed while streams run, and compare what each client got with the undisturbed answer."""
    expected = compare(await undisturbed(road, {**script, "interval_ms": 0}))
    watches = [Watch() for _ in range(STREAMS)]
    async with asyncio.timeout(PATIENCE_S), client(road) as session, asyncio.TaskGroup() as group:
        for seen in watches:
            group.create_task(watch(road, session, seen, script))
        for seen in watches:
            await seen.began.wait()
        await deed(road)
    longest = sorted(max(seen.pauses, default=0.0) * 1000 for seen in watches)
    wrong = [seen for seen in watches if compare(seen.body) != expected]
    return Outcome(
        lost=len(wrong),
        max_pause_ms=round(longest[-1], 1),
        p99_pause_ms=round(longest[int(len(longest) * 0.99)], 1),
        complaints=[f"{seen.status}: ...{seen.body[-300:]!r}" for seen in wrong[:2]],
    )


# The deeds


async def kill_relay(road: Road) -> None:
    """`kill -9` of the relay in use; it comes back afterwards."""
    index = road.relay_in_use()
    relay = road.relays[index]
    relay.process.kill()
    await asyncio.to_thread(relay.process.wait)
    await asyncio.to_thread(road.start_relay, relay.ready["port"])


async def kill_worker(road: Road) -> None:
    """`kill -9` of one of the workers in mid-answer."""
    worker = road.workers()[0]
    worker.kill()
    await asyncio.to_thread(psutil.wait_procs, [worker], 5)


async def drain_relay(road: Road) -> None:
    """SIGTERM to the relay in use, as in a rolling update."""
    relay = road.relays[road.relay_in_use()]
    relay.process.terminate()
    await asyncio.to_thread(relay.process.wait)
    await asyncio.to_thread(road.start_relay, relay.ready["port"])


async def restart_broker(road: Road) -> None:
    """`kill -9` of the only broker, and its return."""
    road.brokers[0].kill()
    await asyncio.to_thread(road.brokers[0].start)


async def kill_broker_node(road: Road) -> None:
    """`kill -9` of the first node of a cluster; the others go on, and it returns later."""
    road.brokers[0].kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(road.brokers[0].start)


async def drop_broker_clients(road: Road) -> None:
    """Every connection to the broker is closed at once."""
    for gate in road.broker_gates:
        gate.drop()


async def freeze_gateway(road: Road) -> None:
    """The gateway does nothing for a while: windows fill, and nothing grows."""
    pid = road.services["gateway"].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(2)
    finally:
        os.kill(pid, signal.SIGCONT)


async def starve_gateway(road: Road) -> None:
    """The gateway does nothing until the broker has disconnected it as a slow consumer."""
    await _frozen_until_slow(road, road.services["gateway"].process.pid, "gateway")


async def starve_relay(road: Road) -> None:
    """The relay does nothing, while more comes for its worker than anybody keeps, until the broker disconnects it."""
    (lease_id,) = road.leases()
    junk = encode(FrameType.CANCEL, bytes(500_000), request_id=new_id())
    bus = await nats.connect(road.nats_url)

    frozen = asyncio.create_task(_frozen_until_slow(road, road.relays[road.relay_in_use()].process.pid, "relay"))
    # Not a task to be cancelled: in Python 3.11 the wait in a flush may swallow that.
    while not frozen.done():
        await bus.publish(lease_in(lease_id), junk)
        await bus.flush()
    await bus.close()
    await frozen


async def _frozen_until_slow(road: Road, pid: int, name: str) -> None:
    """Stop a process, and let it go on when the broker says that it has disconnected it as a slow consumer."""
    broker = road.brokers[0]
    before = (await asyncio.to_thread(broker.slow_consumers)).count(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S / 2):
            while (await asyncio.to_thread(broker.slow_consumers)).count(name) == before:
                pass
    finally:
        os.kill(pid, signal.SIGCONT)


async def cut_network(road: Road) -> None:
    """Nothing passes between worker and relays for five seconds; the same worker goes on."""
    for gate in road.gates:
        gate.cut()
    await asyncio.sleep(5)
    for gate in road.gates:
        gate.mend()


def kill_service(name: str) -> Deed:
    """`kill -9` of a service; new requests are asked while it is away, then it returns."""

    async def deed(road: Road) -> None:
        program = road.services[name]
        program.process.kill()
        await asyncio.to_thread(program.process.wait)
        async with client(road) as session:
            for model in ("hpc", "auto"):
                seen = Watch()
                await watch(road, session, seen, {"tokens": 2}, model)
                if name == "hpc_dispatch" and model == "hpc" and "dispatch away" not in seen.reason:
                    raise AssertionError(f"the reason does not say that dispatch is away: {seen.reason!r}")
                if b"[DONE]" not in seen.body:
                    raise AssertionError(f"{model} without {name}: {seen.status} {seen.body[-300:]!r}")
        await asyncio.to_thread(road.start_service, name)

    return deed


async def leave(road: Road) -> float:
    """A client leaves in mid-answer; milliseconds until the engine's request was aborted."""
    async with client(road) as session:
        before = sum(request["ended"] == "aborted" for request in await requests(road, session))
        body = {"model": "hpc", "stream": True, "messages": MESSAGES, "script": {"tokens": 10_000, "interval_ms": 10}}
        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
            await response.content.readany()
            left = time.time()
            response.close()
        async with session.get(f"{road.engine_url}/events?aborted={before + 1}") as answer:
            seen = await answer.json()
    return (max(request.get("aborted_at", 0.0) for request in seen) - left) * 1000


async def leave_nothing(road: Road) -> None:
    """A client leaves once its worker has told that it runs a request; returns when no worker tells of any."""
    tls = road.folder / "tls"
    files = TlsFiles(ca=tls / "ca.pem", certificate=tls / "gateway.pem", key=tls / "gateway.key")
    target = f"127.0.0.1:{road.services['hpc_dispatch'].ready['port']}"
    body = {"model": "hpc", "stream": True, "messages": MESSAGES, "script": {"tokens": 10_000, "interval_ms": 10}}
    async with client(road) as session, open_channel(target, files) as channel:
        stub = hpc_dispatch_pb2_grpc.HpcDispatchStub(channel)
        news = aiter(stub.WatchPool(hpc_dispatch_pb2.WatchPoolRequest(gateway_id="test")))

        async def until_running(count: int) -> None:
            while sum(worker.running for worker in (await anext(news)).workers) != count:
                pass

        async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
            await response.content.readany()
            await until_running(1)
            response.close()
        await until_running(0)


async def requests(road: Road, session: aiohttp.ClientSession) -> list[dict[str, object]]:
    """What the engine has seen."""
    async with session.get(f"{road.engine_url}/requests") as response:
        return list(await response.json())


async def ready_status(road: Road) -> int:
    """HTTP status of the gateway's /readyz; 0 when nobody answers."""
    with contextlib.suppress(aiohttp.ClientError):
        async with client(road) as session, session.get(f"{road.gateway_url}/readyz") as response:
            return response.status
    return 0
