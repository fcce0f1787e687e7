"""The release before this one, and what its store needs."""

import pytest
from gateway_accounts.conftest import postgres
from upgrade.release import Release, previous

__all__ = ["postgres", "release"]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Its sources."""
    return previous(tmp_path_factory.mktemp("previous"), "programs")
