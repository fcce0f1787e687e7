"""The release before this one."""

import pytest
from upgrade.release import Release, previous


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Its sources."""
    return previous(tmp_path_factory.mktemp("previous"))
