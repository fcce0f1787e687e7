"""A worker and its own engine, as real processes: crashes, failures to start, the load; as hpc_dispatch hears it."""

import asyncio
import contextlib
import socket
import sys

import aiohttp
import psutil
import pytest
from gateway_hpc import lane
from worker.ear import ear

from stream_core.errors import StreamBroken, StreamError
from stream_core.testing.broker import free_port
from stream_core.testing.engine import scripted_engine

pytestmark = pytest.mark.process

OWN_ENGINE = {
    "command": [sys.executable, "-m", "stream_core.testing.engine"],
    "environment": {
        "STREAM_CORE_TESTING_ENGINE__PORT": "{port}",
        "STREAM_CORE_TESTING_ENGINE__API_KEY": "{api_key}",
    },
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Broker, relay and an engine to attach to, started once for this file."""
    with lane.parts(tmp_path_factory.mktemp("life")) as running:
        yield running


@pytest.fixture
def parts(processes):
    """The same with a lease of its own for each test."""
    return processes.for_lease(lane.Lease())


async def ended(program) -> int:
    """Wait for the worker's end."""
    async with asyncio.timeout(60):
        return await asyncio.to_thread(program.process.wait)


async def answer(parts, gateway, script):
    """Ask the worker once; what came."""
    target = await lane.announced(parts)
    return await lane.read(await lane.ask(gateway, target, script))


async def test_the_engines_key_is_in_its_environment_and_nowhere_else(parts):
    """`{api_key}` reaches the engine, the worker uses it, and no other user of the node can read it."""
    with lane.worker(parts, engine=OWN_ENGINE) as program:
        async with lane.channel(parts.nats_url) as gateway:
            assert b"[DONE]" in await answer(parts, gateway, {"tokens": 3})
        worker = psutil.Process(program.process.pid)
        (engine,) = [child for child in worker.children() if "stream_core.testing.engine" in child.cmdline()]
        key = engine.environ()["STREAM_CORE_TESTING_ENGINE__API_KEY"]
        assert len(key) > 32
        assert not any(key in part for process in (worker, engine) for part in process.cmdline())
        assert key not in "".join(worker.environ().values())
        port = engine.environ()["STREAM_CORE_TESTING_ENGINE__PORT"]
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
            assert response.status == 401


async def test_the_engine_dies_and_is_started_again(parts):
    """The lease lives on: running answers fail, STATUS says what goes on, and after the last restart why it is over."""
    with lane.worker(parts, engine=OWN_ENGINE) as program:
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            for crash in (1, 2):
                await heard.until(lambda status: status.engine_ready, after=len(heard.statuses))
                seen = len(heard.statuses)
                with pytest.raises(StreamBroken):
                    await answer(parts, gateway, {"tokens": 50, "die": 5})
                away = await heard.until(lambda status: not status.engine_ready, after=seen)
                assert (away.failed, away.draining) == ("", False)
                again = f"the engine ended with signal 9, restart {crash} of 2: "
                await heard.until(lambda status, again=again: status.note.startswith(again), after=seen)
                back = await heard.until(lambda status: status.engine_ready, after=len(heard.statuses))
                assert back.note == ""
                assert b"[DONE]" in await answer(parts, gateway, {"tokens": 3})
            with pytest.raises(StreamBroken):
                await answer(parts, gateway, {"tokens": 50, "die": 5})
            assert await ended(program) == 1
            last = await heard.until(lambda status: status.failed)
            assert last.failed.startswith("the engine ended with signal 9; its log ends:\n")
            assert last.failed.endswith("scripted: out of memory")
            assert "engine: the engine ended with signal 9" in program.log()


async def test_an_engine_that_says_that_its_core_has_died(parts):
    """An error event that ends the stream properly is no end of the answer; the engine is ended and started again."""
    with lane.worker(parts, engine=OWN_ENGINE) as program:
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            before = psutil.Process(program.process.pid).children()
            target = await lane.announced(parts)
            sick = await lane.ask(gateway, target, {"tokens": 50, "sick": 5})
            got = b""
            with pytest.raises(StreamBroken, match="the engine died in mid-answer"):
                async for batch in sick:
                    got += b"".join(batch)
            assert (got.count(b"\n\n"), b"error" in got) == (5, False)
            away = await heard.until(lambda status: status.note)
            assert "is not ready any more, restart 1 of 2" in away.note
            await heard.until(lambda status: status.engine_ready, after=len(heard.statuses))
            assert b"[DONE]" in await answer(parts, gateway, {"tokens": 3})
            _, alive = await asyncio.to_thread(psutil.wait_procs, before, timeout=60)
            assert alive == []


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ({"command": ["no-such-engine", "--port", "{port}"]}, "engine command 'no-such-engine': No such file"),
        ({"command": ["engine", "--api-key", "{api_key}"]}, "{api_key} may stand in the environment only"),
        (
            {"command": ["/bin/sh", "-c", "echo loading; echo /models/none: not a folder >&2; exit 3"]},
            "the engine ended with exit code 3; its log ends:\nloading\n/models/none: not a folder",
        ),
        (
            {"command": ["/bin/sh", "-c", "echo the key is $K; exit 1"], "environment": {"K": "{api_key}"}},
            "the engine ended with exit code 1; its log ends:\nthe key is ***",
        ),
        (
            {"command": ["/bin/sh", "-c", "echo compiling; exec sleep 600"], "start_timeout_s": 0.5},
            "the engine was not ready within 0.5 s; its log ends:\ncompiling",
        ),
        ({"command": ["/bin/true"], "url": "http://127.0.0.1:{taken}"}, "of this node is taken: another program"),
        ({"url": "http://127.0.0.1:{closed}", "start_timeout_s": 0.5}, "within 0.5 s: nothing answers at http://127"),
    ],
    ids=["no command", "key in arguments", "ends", "tells its key", "too slow", "port taken", "nothing to attach to"],
)
async def test_an_engine_that_can_not_start(parts, engine, reason):
    """The last STATUS says why, with the end of the engine's log and none of its secrets; then the worker is gone."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        places = {"{taken}": str(stranger.getsockname()[1]), "{closed}": str(free_port())}
        if "url" in engine:
            url = engine["url"]
            for place, port in places.items():
                url = url.replace(place, port)
            engine = {**engine, "url": url}
        async with ear(parts) as heard:
            with lane.worker(parts, engine=engine, ready=False) as program:
                assert await ended(program) == 1
                last = await heard.until(lambda status: status.failed)
                assert reason in last.failed
                assert not last.engine_ready
                assert heard.statuses[-1].failed == last.failed


async def test_what_it_does_while_it_starts(parts):
    """An operator sees the last thing that the engine said, as a terminal would show it."""
    command = ["/bin/sh", "-c", r"printf 'Loading shards: 10%%\rLoading shards: 40%%\r'; exec sleep 600"]
    async with ear(parts) as heard:
        with lane.worker(parts, engine={"command": command}, ready=False):
            status = await heard.until(lambda status: status.note)
            assert (status.note, status.engine_ready) == ("Loading shards: 40%", False)


async def test_the_load(parts):
    """Queue, cache use, first token and requests served are in the heartbeat, as the engine and the worker count."""
    with lane.worker(parts, engine=OWN_ENGINE):
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            before = await heard.until(lambda status: status.engine_ready)
            assert (before.served, before.first_token_ms) == (0, None)
            await answer(parts, gateway, {"tokens": 3, "delay_ms": 100, "waiting": 7, "cache_use": 0.5})
            after = await heard.until(lambda status: status.waiting == 7)
            assert (after.cache_use, after.served) == (0.5, 1)
            assert after.first_token_ms >= 100


async def test_an_engine_without_metrics(parts, tmp_path):
    """It is no error, and it is asked once, not with every heartbeat."""
    script = tmp_path / "bare.py"
    script.write_text(
        "import http.server, sys\n"
        "class Bare(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200 if self.path == '/health' else 404)\n"
        "        self.end_headers()\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Bare).serve_forever()\n"
    )
    folder = tmp_path / "node"
    with lane.worker(
        parts,
        engine={"command": [sys.executable, str(script), "{port}"]},
        env={"STREAM_WORKER__NODE_FOLDER": str(folder)},
    ):
        async with ear(parts) as heard:
            await heard.until(lambda status: status.engine_ready)
            await heard.until(lambda status: status.engine_ready, after=len(heard.statuses) + 6)
            assert heard.statuses[-1].cache_use is None
        assert (folder / "engine.log").read_text().count("GET /metrics") == 1


async def test_an_attached_engine_goes_and_comes_back(parts):
    """It is not ours to start: the worker says that it is away, and takes requests again when it is there."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        url = first.enter_context(scripted_engine(port=port))
        stack.enter_context(lane.worker(parts, engine={"url": url}))
        async with ear(parts) as heard, lane.channel(parts.nats_url) as gateway:
            await heard.until(lambda status: status.engine_ready)
            first.close()
            away = await heard.until(lambda status: not status.engine_ready and status.note)
            assert f"waiting for an answer from {url}" in away.note
            with pytest.raises(StreamError, match="the engine is starting"):
                await answer(parts, gateway, {"tokens": 3})
            stack.enter_context(scripted_engine(port=port))
            await heard.until(lambda status: status.engine_ready, after=len(heard.statuses))
            assert b"[DONE]" in await answer(parts, gateway, {"tokens": 3})


async def test_a_killed_worker_leaves_nothing_of_its_engine(parts):
    """`kill -9` of the worker ends the engine and what the engine has started, whoever owns that by then."""
    command = ["/bin/sh", "-c", f"sleep 600 & exec {sys.executable} -m stream_core.testing.engine"]
    with lane.worker(parts, engine={**OWN_ENGINE, "command": command}) as program:
        children = psutil.Process(program.process.pid).children(recursive=True)
        assert "sleep" in [child.name() for child in children]
        program.process.kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, timeout=60)
        assert alive == []
