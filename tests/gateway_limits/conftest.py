"""Two gateways on one broker and one engine, for all tests here that do not kill them."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from gateway_limits.bank import Bank

from stream_core.testing.engine import scripted_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A scripted engine: its base URL."""
    with scripted_engine() as url:
        yield url


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Bank]:
    """Shared by the tests, each with keys of its own."""
    with Bank.running(tmp_path_factory.mktemp("bank"), engine) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client with as many connections as are wanted."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        yield session
