"""An engine for the gateways of these tests, and PostgreSQL for their accounts."""

from collections.abc import Iterator

import pytest
from gateway_accounts.conftest import postgres

from stream_core.testing.engine import scripted_engine

__all__ = ["engine", "postgres"]


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """A scripted engine: its base URL."""
    with scripted_engine() as url:
        yield url
