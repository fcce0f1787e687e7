"""What all tests of the worker share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """What the machine's environment says about proxies is no part of these tests."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def log(caplog):
    """Everything that is logged, down to DEBUG."""
    caplog.set_level(logging.DEBUG)
    return caplog
