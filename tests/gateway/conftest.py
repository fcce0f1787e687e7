"""One engine and one gateway for the tests that need nothing special of them."""

import socket
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, tier

from stream_core.testing.engine import scripted_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A scripted engine: its base URL."""
    with scripted_engine() as url:
        yield url


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Gateway]:
    """A gateway with two tiers on the same engine: `local`, and `cloud` that sees images and nothing confidential."""
    stage = Stage(
        tmp_path_factory.mktemp("gateway"),
        {
            "tiers": [
                tier("local", engine),
                tier(
                    "cloud",
                    engine,
                    privacy="public",
                    models=[{"id": "huge", "upstream": "scripted", "modalities": ["text", "image"]}],
                ),
            ]
        },
    )
    stage.add_key("local only", tiers=["local"])
    stage.add_key("internal", privacy="internal")
    with stage.run() as running:
        yield running


@pytest.fixture(scope="session")
def bare_stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Files of a gateway whose tiers each test chooses."""
    return Stage(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def bare(bare_stage: Stage) -> Iterator[Gateway]:
    """That gateway: `configure` gives it tiers. Its judge accepts connections and is silent; the HPC side is away."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"127.0.0.1:{taken.getsockname()[1]}"
        taken.close()
        with bare_stage.run(
            {"STREAM_GATEWAY__NATS__URL": f"nats://{away}"},
            judge_target=f"127.0.0.1:{silent.getsockname()[1]}",
            judge_deadline_ms=50,
            dispatch_target=away,
        ) as running:
            yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session
