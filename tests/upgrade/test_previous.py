"""Programs of the release before this one beside this one's, in both directions, on the real road.

road     | worker | relays | dispatch | gateways
---------+--------+--------+----------+-------------------
forward  | before | now    | now      | now, and before
backward | now    | before | before   | before, and now
"""

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from gateway.stage import events_of
from upgrade.release import Release

from stream_core.testing import programs, road
from stream_core.testing.programs import Program
from stream_core.testing.road import Road, run_road, wait_hot
from stream_core.wire.frames import FrameType, encode

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"


@dataclass
class Mixed:
    """A road, and a second gateway of the other release."""

    road: Road
    other: Program

    @property
    def gateways(self) -> list[str]:
        """Both."""
        return [self.road.gateway_url, f"http://127.0.0.1:{self.other.ready['port']}"]

    def ask(self, session: aiohttp.ClientSession, at: str, **fields: Any) -> Any:
        """Ask for a streamed answer with usage."""
        body = {"model": "hpc", "messages": [{"role": "user", "content": "count"}], "stream": True, **fields}
        body["stream_options"] = {"include_usage": True}
        return session.post(at + PATH, json=body, headers={"authorization": f"Bearer {self.road.api_key}"})


@contextlib.contextmanager
def mixed(folder: Path, services: str, worker: str, gateway: str) -> Iterator[Mixed]:
    """Run a road; each part gets the `PYTHONPATH` of its release, empty for this one's."""
    command = json.dumps(["/usr/bin/env", f"PYTHONPATH={worker}", sys.executable, "-m", "stream_worker"])
    parts = {"PYTHONPATH": services, "STREAM_HPC_DISPATCH__WORKER_COMMAND": command}
    with run_road(folder, relays=2, env=parts) as running:
        env = {**road._service(running, "gateway", 0), "PYTHONPATH": gateway}
        other = running.stack.enter_context(programs.start("stream_gateway", env=env))
        asyncio.run(wait_hot(running))
        yield Mixed(running, other)


@pytest.fixture(scope="module", params=["forward", "backward"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, release: Release) -> Iterator[Mixed]:
    """Each road once."""
    before, now = release.pythonpath, ""
    services, worker = (now, before) if request.param == "forward" else (before, now)
    with mixed(tmp_path_factory.mktemp(request.param), services, worker, worker) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as made:
        yield made


async def test_each_part_is_of_its_release(both: Mixed, release: Release, request: pytest.FixtureRequest) -> None:
    """The processes themselves: else nothing here would mean anything."""
    forward = "forward" in request.node.name
    (worker,) = both.road.workers()
    parts = [worker, *(psutil.Process(program.process.pid) for program in (both.road.relays[0], both.other))]
    before = [release.pythonpath == part.environ()["PYTHONPATH"] for part in parts]
    assert before == [forward, not forward, forward]


async def test_answers_are_the_engines(both: Mixed, session: aiohttp.ClientSession) -> None:
    """Each event, byte for byte, the end and the usage: streamed, and whole."""
    script = {"tokens": 40, "text": "é€ "}
    direct = {"model": "scripted", "messages": [{"role": "user", "content": "count"}], "script": script}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{both.road.engine_url}{PATH}", json={**direct, **options}) as answer:
        wanted = events_of(await answer.read())
    for gateway in both.gateways:
        async with both.ask(session, gateway, script=script) as answer:
            assert answer.status == 200, await answer.text()
            assert events_of(await answer.read()) == wanted
        async with session.post(
            gateway + PATH, json={**direct, "model": "hpc"}, headers={"authorization": f"Bearer {both.road.api_key}"}
        ) as answer:
            told = await answer.json()
        assert told["choices"][0]["message"]["content"] == "é€ " * 40
        assert told["usage"]["completion_tokens"] == 40


async def test_a_relay_dies_in_mid_answer(both: Mixed, session: aiohttp.ClientSession) -> None:
    """Nothing is lost, doubled or out of order; the worker goes on through the other relay."""
    script = {"tokens": 60, "interval_ms": 25}
    for gateway in both.gateways:
        async with both.ask(session, gateway, script=script) as answer:
            assert answer.status == 200, await answer.text()
            body = await answer.content.readany()
            killed = both.road.relays[both.road.relay_in_use()]
            killed.process.kill()
            body += await answer.content.read()
        await asyncio.to_thread(both.road.start_relay, killed.ready["port"])
        async with session.post(
            f"{both.road.engine_url}{PATH}",
            json={
                "model": "scripted",
                "messages": [{"role": "user", "content": "count"}],
                "script": {"tokens": 60},
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ) as answer:
            assert events_of(body) == events_of(await answer.read())


async def test_a_client_that_leaves_is_told(both: Mixed, session: aiohttp.ClientSession) -> None:
    """CANCEL is understood: the engine stops, whichever gateway says it."""
    for gateway in both.gateways:
        async with session.get(f"{both.road.engine_url}/requests") as answer:
            aborted = sum(seen["ended"] == "aborted" for seen in await answer.json())
        async with both.ask(session, gateway, script={"tokens": 100_000, "interval_ms": 10}) as answer:
            await answer.content.readany()
        async with session.get(f"{both.road.engine_url}/events?aborted={aborted + 1}") as answer:
            assert answer.status == 200


async def test_a_newer_version_is_refused(both: Mixed, session: aiohttp.ClientSession) -> None:
    """A HELLO of version 2 is answered with a close that names both versions."""
    frame = bytearray(encode(FrameType.HELLO, b"{}"))
    struct.pack_into(">B", frame, 0, 2)
    port = both.road.relays[0].ready["port"]
    async with session.ws_connect(f"http://127.0.0.1:{port}/v1/worker") as socket:
        await socket.send_bytes(bytes(frame))
        message = await socket.receive(timeout=60)
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert message.extra == "protocol version 2, only 1 is spoken here"
