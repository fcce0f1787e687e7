"""Each overlay in turn; what needs rendering is skipped without a kubectl that can, and the reason is printed."""

import time

import pytest
from deploy.rendered import OVERLAYS, Rendered, why_no_kubectl

from stream_cli.cluster_secrets import Installation, make

REASON = why_no_kubectl()


def pytest_report_header():
    """Say it where everybody sees it."""
    return f"tests/deploy: {REASON}" if REASON else None


@pytest.fixture(params=OVERLAYS)
def rendered(request):
    """One overlay's objects."""
    if REASON:
        pytest.skip(REASON)
    return Rendered(request.param)


@pytest.fixture(scope="session")
def made_secrets(tmp_path_factory):
    """What `make k8s-secrets` makes."""
    installation = Installation(tmp_path_factory.mktemp("secrets"))
    make(installation, now=time.time())
    return installation
