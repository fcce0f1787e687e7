"""Mutants and hostile workers against real processes, while an honest stream runs: it completes byte for byte."""

import asyncio
import json
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import nats
import pytest
from fuzz.attackers import Eavesdropper, FakeWorker, in_subject, until_closed, upstream
from fuzz.mutants import Mutator
from psutil import CONN_LISTEN
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stream_core import tickets
from stream_core.ids import new_id, to_hex
from stream_core.testing import programs
from stream_core.testing.road import Road, run_road, wait_hot
from stream_core.wire.frames import FrameType, encode, split

pytestmark = pytest.mark.process

SCRIPT = {"tokens": 300, "interval_ms": 10, "text": " {n}"}
STREAMS = 4
THROWN = 2000


@pytest.fixture(scope="module")
def road(tmp_path_factory) -> Iterator[Road]:
    """One of each part."""
    with run_road(tmp_path_factory.mktemp("fuzz")) as running:
        asyncio.run(wait_hot(running))
        yield running


@pytest.fixture
async def strict(road) -> AsyncIterator[programs.Program]:
    """A relay of its own with low limits, on the road's broker."""
    env = {
        "STREAM_RELAY__NATS__URL": road.nats_url,
        "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(road.folder / "ticket.pub"),
        "STREAM_RELAY__MAX_FRAMES_PER_S": "1000",
        "STREAM_RELAY__MAX_UNAUTHENTICATED": "5",
        "STREAM_RELAY__HELLO_TIMEOUT_S": "3",
        "STREAM_RELAY__MAX_WORKER_BACKLOG": str(1 << 20),
        "STREAM_RELAY__MAX_FRAME": "10000",
        "STREAM_RELAY__MAX_MESSAGE": "200000",
    }
    with programs.start("stream_relay", env=env) as relay:
        yield relay


def url(relay: programs.Program) -> str:
    return f"ws://127.0.0.1:{relay.ready['port']}"


def base(relay: programs.Program) -> str:
    return f"http://127.0.0.1:{relay.ready['port']}"


def fake(road: Road, relay: programs.Program) -> FakeWorker:
    return FakeWorker(url(relay), (road.folder / "ticket.key").read_text())


def faults(log: str) -> Counter[str]:
    """Log lines by kind of fault."""
    return Counter(re.findall(r'"kind": "(\w+)"', log))


def counted(program: programs.Program) -> dict[str, int]:
    """End a program and read what it has counted, by kind, from the last line of its log."""
    assert program.stop() == 0
    line = json.loads(program.log().splitlines()[-1])
    assert line["msg"] == "faults"
    return dict(line["faults"])


async def metrics(where: str) -> Counter[str]:
    """What a running program has counted, by kind, from its /metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"{where}/metrics") as response:
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    samples = re.findall(r'^stream_faults_total{kind="(\w+)"} (\d+)$', text, re.MULTILINE)
    assert len(samples) == text.count("\nstream_faults_total")
    return Counter({kind: int(number) for kind, number in samples})


def logs(road: Road) -> dict[str, str]:
    """What each part has written."""
    found = {name: program.log() for name, program in road.services.items()} | {"relay": road.relays[0].log()}
    return found | {path.name: path.read_text() for path in Path(road.folder, "dispatch").rglob("*.log")}


async def answer(road: Road, base: str, model: str) -> bytes:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}], "script": SCRIPT}
    headers = {"authorization": f"Bearer {road.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{base}/v1/chat/completions", json=body) as response,
    ):
        return await response.read()


async def honest_streams(road: Road) -> list[bytes]:
    return await asyncio.gather(*(answer(road, road.gateway_url, "hpc") for _ in range(STREAMS)))


def alive(road: Road, before: dict[str, int]) -> bool:
    return road.pids() == before and all(program.process.poll() is None for program in road.services.values())


async def test_who_has_the_broker_changes_nothing(road):
    """Mutants of live frames for the worker, the gateway and hpc_dispatch are dropped, counted and logged once."""
    expected = await answer(road, road.engine_url, "scripted")
    before = road.pids()
    spy = await Eavesdropper.listen(road.nats_url)
    try:
        assert await answer(road, road.gateway_url, "hpc") == expected
        running = asyncio.ensure_future(honest_streams(road))
        while not running.done():
            for seed, kind in enumerate(("in", "gw", "out")):
                for subject in spy.of(kind):
                    await spy.throw(subject, 250, seed + spy.thrown)
        assert await running == [expected] * STREAMS
        for kind in ("in", "gw", "out"):
            for subject in spy.of(kind):
                await spy.throw(subject, THROWN, 99)
        assert spy.thrown > 3 * THROWN
    finally:
        await spy.close()
    assert await answer(road, road.gateway_url, "hpc") == expected
    assert alive(road, before)
    for name, log in logs(road).items():
        assert "Traceback" not in log, name
        assert all(lines == 1 for lines in faults(log).values()), (name, faults(log))
    told = Counter[str]()
    for log in logs(road).values():
        told += faults(log)
    assert {"malformed", "malformed_frame", "seal_broken", "replay", "unexpected_frame", "bad_status"} <= set(told)


async def test_every_frame_is_counted(tmp_path):
    """Worker, gateway and hpc_dispatch count each frame that means nothing to them, no more and no less."""
    with run_road(tmp_path) as road:
        await wait_hot(road)
        (listening,) = [port for port in road.workers()[0].net_connections("tcp") if port.status == CONN_LISTEN]
        at = {"in": f"http://127.0.0.1:{listening.laddr.port}", "gw": road.gateway_url}
        spy = await Eavesdropper.listen(road.nats_url)
        expected = await answer(road, road.gateway_url, "hpc")
        await spy.heard_enough()
        # Another one behind it: when it is answered, the worker has seen the end of the first.
        assert await answer(road, road.gateway_url, "hpc") == expected
        before = {kind: (await metrics(where)).total() for kind, where in at.items()}
        subjects = {kind: spy.of(kind) for kind in ("in", "gw", "out")}
        for seed, (subject,) in enumerate(subjects.values()):
            await spy.throw(subject, THROWN, seed)
        # An honest answer behind them: what is before it on each way has been looked at.
        assert await answer(road, road.gateway_url, "hpc") == expected
        for kind, where in at.items():
            assert (await metrics(where)).total() - before[kind] == spy.faults[subjects[kind][0]], kind
        await spy.close()
        dispatch = counted(road.services["hpc_dispatch"])
        assert sum(dispatch.values()) == spy.faults[subjects["out"][0]], dispatch


async def test_sockets_of_the_relay(road):
    """Mutated messages with and without HELLO, and raw bytes, close their sockets; honest streams do not notice."""
    expected = await answer(road, road.engine_url, "scripted")
    before, relay = road.pids(), road.relays[0]
    worker = fake(road, relay)
    seen = [worker.hello(), upstream(new_id()), encode(FrameType.STATUS, bytes(40), request_id=worker.lease_id)]
    foreign = [fake(road, relay).hello(), encode(FrameType.ANNOUNCE, bytes(9), request_id=new_id())]
    mutants = [mutant for _, mutant in Mutator(7, seen, foreign).draw(THROWN)]
    running = asyncio.ensure_future(honest_streams(road))
    queue, sockets, closed, counts = deque(mutants), 0, 0, await metrics(base(relay))
    while queue:
        with_hello = sockets % 2 == 0
        async with await worker.admitted() if with_hello else worker.connect() as socket:
            try:
                for _ in range(min(len(queue), 10 if with_hello else 1)):
                    await socket.send(queue.popleft())
                await (await socket.ping())
            except ConnectionClosed:
                closed += 1
        sockets += 1
    for _ in range(100):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.ready["port"])
        writer.write(mutants[0] * 3 + b"GET /v1/worker HTTP/1.1\r\n\xff: \x00\r\n\r\n")
        await writer.drain()
        writer.close()
    assert await running == [expected] * STREAMS
    assert alive(road, before)
    assert "Traceback" not in relay.log()
    # Each socket that was closed has one fault, and nothing else has.
    assert (await metrics(base(relay))).total() - counts.total() == closed > THROWN // 10
    kinds = faults(relay.log())
    assert set(kinds) <= {"malformed", "ticket", "websocket", "replaced"}
    assert kinds["malformed"] == 1


async def test_workers_that_leave_at_once(road, strict):
    """Sockets that say HELLO and are gone do not make the relay deaf: the next worker is served and gets its frames."""
    bus = await nats.connect(road.nats_url)
    for _ in range(200):
        worker = fake(road, strict)
        async with worker.connect() as socket:
            await socket.send(worker.hello())
            socket.transport.abort()
    worker = fake(road, strict)
    async with asyncio.timeout(20):
        socket = await worker.admitted()
        await bus.publish(in_subject(worker.lease_id), upstream(new_id()))
        await socket.recv()
        await socket.close()
    assert "Traceback" not in strict.log()
    await bus.close()
    assert counted(strict) == {}


async def test_tickets(road, strict):
    """Without a ticket, with one of another signer, an expired one or one of another lease: closed, with the reason."""
    worker = fake(road, strict)
    stranger = FakeWorker(url(strict), tickets.new_signing_key()[0], worker.lease_id)
    other = fake(road, strict)
    good = worker.ticket()
    cases = {
        worker.hello(""): "ticket refused",
        worker.hello(good[:-4]): "ticket refused",
        worker.hello(good[:-20] + good[-20:].swapcase()): "ticket refused",
        stranger.hello(): "ticket refused",
        worker.hello(worker.ticket(lifetime_s=60, age_s=3600)): "expired",
        other.hello(good): "another lease",
        encode(FrameType.HELLO, b'{"x":' + b"[" * 9000): "HELLO body",
        upstream(new_id()): "the first message must be one HELLO",
    }
    for message, reason in cases.items():
        closed = await worker.say(message)
        assert closed.rcvd is not None
        assert (closed.rcvd.code, reason in closed.rcvd.reason) == (1008, True), closed.rcvd.reason
    assert faults(strict.log()) == {"ticket": 1, "malformed": 1}
    await (await worker.admitted()).close()
    expected = {"ticket": 6, "malformed": 2}
    assert await metrics(base(strict)) == expected
    assert counted(strict) == expected


async def test_a_worker_that_floods(road, strict):
    """More frames a second than a worker may send close its socket with the limit; another's goes on."""
    bus = await nats.connect(road.nats_url)
    flooder, steady, gateway_id = fake(road, strict), fake(road, strict), new_id()
    heard = await bus.subscribe(f"stream.v1.gw.{to_hex(gateway_id)}")
    await bus.flush()
    bad, good = await flooder.admitted(), await steady.admitted()
    closed = await until_closed(bad, *[upstream(new_id(), 100)] * 12)
    assert closed.rcvd is not None
    assert closed.rcvd.reason == "more than 1,000 frames a second"
    await good.send(upstream(gateway_id))
    assert (await heard.next_msg(timeout=5)).data == upstream(gateway_id)
    await good.close()
    await bus.close()
    assert counted(strict) == {"malformed": 1}


async def test_sockets_without_hello(strict, road):
    """So many may wait, the next hears 503; each is closed at the limit, and then there is room again."""
    worker = fake(road, strict)
    waiting = [await worker.connect() for _ in range(5)]
    with pytest.raises(InvalidStatus) as refused:
        await worker.connect()
    assert refused.value.response.status_code == 503
    for socket in waiting:
        closed = await until_closed(socket)
        assert closed.rcvd is not None
        assert closed.rcvd.reason == "no HELLO within 3 s"
    await (await worker.admitted()).close()
    assert faults(strict.log()) == {"refused": 1, "hello_timeout": 1}
    assert counted(strict) == {"refused": 1, "hello_timeout": 5}


async def test_oversized(road, strict):
    """A frame and a message past their limits are refused with both numbers; text is not spoken."""
    worker = fake(road, strict)
    closed = await until_closed(await worker.admitted(), upstream(new_id(), size=20_000))
    assert closed.rcvd is not None
    assert closed.rcvd.reason == "frame of 20,048 bytes, at most 10,000"
    closed = await until_closed(await worker.admitted(), bytes(300_000))
    assert closed.rcvd is not None
    assert (closed.rcvd.code, "300000 > 204096" in closed.rcvd.reason) == (1009, True), closed.rcvd
    closed = await until_closed(await worker.admitted(), "text")  # type: ignore[arg-type]  # that is the point
    assert closed.rcvd is not None
    assert "only whole BINARY ones" in closed.rcvd.reason
    assert counted(strict) == {"malformed": 2, "websocket": 1}


async def test_a_worker_that_does_not_read(road, strict):
    """It is closed at its backlog's limit, and the worker beside it gets all of its own."""
    bus = await nats.connect(road.nats_url)
    deaf, keen = fake(road, strict), fake(road, strict)
    deaf_socket, keen_socket = await deaf.admitted(max_queue=1), await keen.admitted()
    part = encode(FrameType.CANCEL, bytes(9000), request_id=bytes(16))
    for number in range(400):
        await bus.publish(in_subject(deaf.lease_id), part * 20)
        if number % 10 == 0:
            await bus.publish(in_subject(keen.lease_id), part)
            await bus.flush()
            async with asyncio.timeout(60):
                assert split(await keen_socket.recv())[0].wire == part
    closed = None
    try:
        async with asyncio.timeout(60):
            while True:
                await deaf_socket.recv()
    except Exception as error:  # noqa: BLE001  (a socket that is cut and one that is closed are both what is wanted)
        closed = error
    assert not isinstance(closed, TimeoutError)
    assert json.loads(next(line for line in strict.log().splitlines() if '"backlog"' in line))["kind"] == "backlog"
    await keen_socket.close()
    await bus.close()
    assert counted(strict) == {"backlog": 1}
