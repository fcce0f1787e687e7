"""A tier behind HTTP, by itself: what reaches the server, and what never does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from gateway.stage import until

from stream_core.deployment import ModelConfig, TierConfig
from stream_core.errors import ConfigError, InvalidRequest, UpstreamUnavailable
from stream_core.ids import new_id
from stream_gateway.backends.contract import Answer, Call
from stream_gateway.backends.health import Health
from stream_gateway.backends.http import HttpBackend


class Engine:
    """A real HTTP server that remembers its requests."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.connections: set[object] = set()
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        """Answer everything."""
        self.connections.add(request.transport)
        self.seen.append(
            (
                request.method,
                {name.lower(): value for name, value in request.headers.items()},
                await request.json() if request.can_read_body else None,
            )
        )
        return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream", status=self.status)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """The server."""
    made = Engine()
    app = web.Application()
    app.router.add_route("*", "/v1/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


def backend(base_url: str, *, far: bool = False, **fields: Any) -> HttpBackend:
    tier = TierConfig(name="cloud", base_url=base_url, models=[ModelConfig(id="m", upstream="real")], **fields)
    made = HttpBackend(tier, probe_interval_s=0.01)
    if far:
        # A name that is far away and still leads here would need a resolver of its own.
        made._nearby, made._health = False, Health(probed=False)
    return made


def call(**request: Any) -> Call:
    return Call(new_id(), "/chat/completions", "m", {"model": "cloud", **request}, headers={"traceparent": "x"})


async def drained(answer: Answer) -> list[bytes]:
    chunks = [chunk async for batch in answer for chunk in batch]
    await answer.aclose()
    return chunks


async def test_what_is_sent(engine: Engine, tmp_path: Path) -> None:
    """The engine gets its own model name, the tier's key, the request's id and trace; nothing of the client's."""
    (tmp_path / "key").write_text("sk-upstream\n")
    tier = backend(engine.url, far=True, api_key_file=tmp_path / "key")
    await tier.start()
    sent = call(seed=7)
    assert await drained(await tier.open(sent)) == [b"data: [DONE]\n\n"]
    await tier.aclose()
    _, headers, body = engine.seen[-1]
    assert body == {"model": "real", "seed": 7}
    assert headers["authorization"] == "Bearer sk-upstream"
    assert headers["x-request-id"] == sent.request_id.hex()
    assert headers["traceparent"] == "x"
    assert headers["accept-encoding"] == "identity"


async def test_connections_are_used_again(engine: Engine) -> None:
    """Requests one after the other share one connection."""
    tier = backend(engine.url, far=True)
    await tier.start()
    for _ in range(5):
        await drained(await tier.open(call()))
    await tier.aclose()
    assert len(engine.seen) == 5
    assert len(engine.connections) == 1


@contextlib.asynccontextmanager
async def forgetful(kept: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that says it keeps its connections, and resets the first so many when they are used again."""
    asked: list[int] = []
    together = asyncio.Barrier(kept)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(asked)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"}")
            asked.append(number)
            if number < kept:
                await together.wait()  # as many connections are kept as there were questions at once
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 14\r\n\r\n")
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
            await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked
    finally:
        server.close()


async def test_kept_connections_that_are_closed_are_passed_over() -> None:
    """However many of them are kept, the question reaches a nearby server; a far one may have begun: asked once."""
    async with forgetful(4) as (url, asked):
        tier = backend(url)
        tier._nearby = False  # no probe takes one of the connections
        await tier.start()
        answers = await asyncio.gather(*(tier.open(call()) for _ in range(4)))
        assert [await drained(answer) for answer in answers] == [[b"data: [DONE]\n\n"]] * 4
        with pytest.raises(UpstreamUnavailable):
            await tier.open(call())
        tier._nearby = True
        assert await drained(await tier.open(call())) == [b"data: [DONE]\n\n"]
        await tier.aclose()
        assert len(asked) == 5


async def test_a_watcher_that_overhears_its_cancellation(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may lose a cancellation in a timeout of its own: the tier is closed all the same."""
    tier = backend(engine.url)
    probing, overheard = asyncio.Event(), 0

    async def lose_one() -> None:
        nonlocal overheard
        monkeypatch.setattr(tier, "_probe", tier_probe)
        probing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            overheard += 1

    tier_probe = tier._probe
    monkeypatch.setattr(tier, "_probe", lose_one)
    await tier.start()
    await probing.wait()
    async with asyncio.timeout(60):
        await tier.aclose()
    assert overheard == 1
    assert tier._watcher is not None
    assert tier._watcher.done()


async def test_a_far_service_is_never_probed(engine: Engine) -> None:
    """A paid service sees what users ask and nothing else, before, between and after failures."""
    tier = backend(engine.url, far=True)
    await tier.start()
    engine.status = 503
    with pytest.raises(UpstreamUnavailable):
        await tier.open(call())
    assert tier.unavailable("m") == "it is not ready (HTTP 503)"
    await asyncio.sleep(0.3)  # thirty times the interval at which a nearby server is probed
    await tier.aclose()
    assert [method for method, *_ in engine.seen] == ["POST"]


async def test_a_nearby_server_is_probed(engine: Engine) -> None:
    """A nearby server is away while its probes fail and there again when they succeed, without a request."""
    engine.status = 503
    tier = backend(engine.url)
    await tier.start()
    await until(lambda: tier.unavailable("m") == "it is not ready (HTTP 503)")
    engine.status = 200
    await until(lambda: tier.unavailable("m") is None)
    await tier.aclose()
    assert {method for method, *_ in engine.seen} == {"GET"}


async def test_a_key_file_that_comes_late(engine: Engine, tmp_path: Path) -> None:
    """A tier whose key is not there yet is away, says why, and is there when the key is."""
    tier = backend(engine.url, api_key_file=tmp_path / "key")
    await tier.start()
    assert "key" in str(tier.unavailable("m"))
    with pytest.raises(UpstreamUnavailable, match="is away"):
        await tier.open(call())
    (tmp_path / "key").write_text("sk-late")
    await until(lambda: tier.unavailable("m") is None)
    await drained(await tier.open(call()))
    await tier.aclose()
    assert engine.seen[-1][1]["authorization"] == "Bearer sk-late"


async def test_a_request_that_is_no_json(engine: Engine) -> None:
    """What can't be written as JSON is the request's fault, not the tier's."""
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    tier = backend(engine.url, far=True)
    await tier.start()
    with pytest.raises(InvalidRequest):
        await tier.open(call(deep=deep))
    assert tier.unavailable("m") is None
    await tier.aclose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8000/v1", "must begin with http"),
        ("ftp://localhost/v1", "must begin with http"),
        ("http:///v1", "must begin with http"),
        ("http://[::1/v1", "Invalid IPv6"),
        ("http://api.example.org/v1", "in the clear"),
    ],
)
async def test_addresses_that_can_not_be(url: str, words: str) -> None:
    """A wrong address, or one that would show a key to the network, is refused when the deployment is read."""
    with pytest.raises(ConfigError, match=words):
        backend(url, api_key_env="SOME_KEY")
