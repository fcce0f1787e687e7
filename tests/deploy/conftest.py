"""Each overlay in turn; without a kubectl that can render, all of them are skipped, and the reason is printed."""

import pytest
from deploy.rendered import OVERLAYS, Rendered, why_no_kubectl

REASON = why_no_kubectl()


@pytest.fixture(scope="session", autouse=True)
def _kubectl(request):
    """Skip all that needs rendering."""
    if REASON:
        request.config.get_terminal_writer().line(f"tests/deploy: {REASON}")
        pytest.skip(REASON)


@pytest.fixture(params=OVERLAYS)
def rendered(request):
    """One overlay's objects."""
    return Rendered(request.param)
