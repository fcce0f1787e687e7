"""One fort for all tests that do it no harm."""

from collections.abc import Iterator

import pytest
from gateway.stage import until
from security.fort import Fort, run_fort


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    """The gateway, its broker, an engine that keeps what it is asked."""
    with run_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


@pytest.fixture
async def fort(built: Fort) -> Fort:
    """The same, with its store within reach."""
    await until(lambda: bool(built.gateway.lines("files and batches are ready")))
    return built
