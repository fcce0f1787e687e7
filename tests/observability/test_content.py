"""One gateway that traces: texts never by default; turned on, of the least confidential class alone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, chat, tier, until
from observability.collector import Collector, collector

from stream_core.testing.engine import scripted_engine

pytestmark = pytest.mark.process

PATH = "/v1/chat/completions"
ROOT = f"gateway: POST {PATH}"


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[Gateway]:
    """A gateway that records every request and may show texts; one of its keys is for internal matters."""
    with scripted_engine() as engine:
        stage = Stage(tmp_path_factory.mktemp("gateway"), {"tiers": [tier("local", engine)]})
        stage.add_key("internal", privacy="internal")
        env = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
        traces = {"traces__endpoint": spans.url, "traces__sample_ratio": 1}
        with stage.run(env, trace_content="true", **traces) as running:
            yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(gateway: Gateway, client: aiohttp.ClientSession, text: str, **how: Any) -> str:
    """Ask something; the request's id."""
    body = chat("local", stream=how.get("stream", True), script={"tokens": 20, "text": f" {text}-said"})
    body["messages"][0]["content"] = f"{text}-asked"
    headers = {**gateway.headers(how.get("key", "all")), **how.get("headers", {})}
    async with client.post(gateway.url + PATH, json=body, headers=headers) as response:
        assert response.status == 200
        assert (await response.read()).count(b"-said") == 20
        return response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [True, False])
async def test_public_texts_are_shown(
    gateway: Gateway, spans: Collector, client: aiohttp.ClientSession, stream: bool
) -> None:
    """Turned on, a public request's span holds question and answer; the answer itself is not changed by that."""
    root = spans.trace_of(await ask(gateway, client, "blue", stream=stream), ROOT).one(ROOT)
    assert "blue-asked" in root.attributes["gen_ai.input.messages"]
    assert root.attributes["gen_ai.output.messages"].count("blue-said") == 20


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"x-stream-privacy": "restricted"}},
        {"headers": {"x-stream-privacy": "internal"}},
        {"key": "internal"},
    ],
)
async def test_confidential_texts_never_are(
    gateway: Gateway, spans: Collector, client: aiohttp.ClientSession, how: dict[str, Any]
) -> None:
    """A higher class, by header or by key, is traced without its texts, whatever is turned on."""
    root = spans.trace_of(await ask(gateway, client, "red", **how), ROOT).one(ROOT)
    assert root.attributes["stream.ended"] == "complete"
    assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & set(root.attributes)
    assert b"red-" not in b"".join(spans.bodies)


async def test_a_collector_that_is_away_costs_nothing(tmp_path: Path, client: aiohttp.ClientSession) -> None:
    """Requests are answered, the end is quick, and what could not be sent is counted."""
    with scripted_engine() as engine, socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/traces"
        taken.close()
        stage = Stage(tmp_path, {"tiers": [tier("local", engine)]})
        env = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": away}
        with stage.run(env, traces__sample_ratio=1) as gateway:
            await until(lambda: bool(gateway.lines("ready")))
            for _ in range(3):
                await ask(gateway, client, "green")
            assert await asyncio.to_thread(gateway.program.stop) == 0
            (faults,) = [line["faults"] for line in gateway.lines("faults")][-1:]
            assert faults["otlp"] > 0
