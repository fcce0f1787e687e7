"""One running product for all end-to-end tests."""

from collections.abc import Iterator

import openai
import pytest
from e2e.house import House, run_house


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> Iterator[House]:
    """`stream up` with ears on broker, relay and the HPC engine."""
    with run_house(tmp_path_factory.mktemp("house")) as running:
        yield running


@pytest.fixture
def client(house) -> Iterator[openai.OpenAI]:
    """The official client, without its own retries, which would hide our errors."""
    with openai.OpenAI(base_url=house.base_url, api_key=house.api_key, max_retries=0, timeout=60) as made:
        yield made
