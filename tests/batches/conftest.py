"""A gateway with JetStream behind it."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from batches.press import Press

from stream_core.testing.engine import scripted_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A scripted engine: its base URL."""
    with scripted_engine() as url:
        yield url


@pytest.fixture(scope="session")
def press(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Press]:
    """One gateway, its broker, two tiers on one engine; a second key, and one for one tier alone."""
    with Press.running(tmp_path_factory.mktemp("press"), engine, max_lines=1000) as running:
        yield running


@pytest.fixture
async def official(press: Press) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, which does not try again by itself."""
    async with press.client() as client:
        yield client
