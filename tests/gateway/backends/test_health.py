"""Health of an upstream, by what happened and when; and which upstreams may be probed at all."""

import pytest

from stream_gateway.backends.health import FIRST_PAUSE_S, LONGEST_PAUSE_S, Health, is_nearby


def test_unknown_is_healthy() -> None:
    """Before anything happened a request may be tried."""
    assert Health(probed=True).fault(0) is None
    assert Health(probed=False).fault(0) is None


def test_a_probed_upstream_is_away_until_something_succeeds() -> None:
    """Time alone does not bring a probed upstream back; a success does."""
    health = Health(probed=True)
    health.failed("no connection", 10)
    assert health.fault(10) == health.fault(10_000) == "no connection"
    health.succeeded()
    assert health.fault(10_000) is None


def test_an_unprobed_upstream_is_tried_again_after_growing_pauses() -> None:
    """Each failure in a row doubles the pause up to the longest; a success resets it."""
    health, now, pauses = Health(probed=False), 0.0, []
    for _ in range(8):
        health.failed("HTTP 503", now)
        start = now
        while health.fault(now) is not None:
            now += 0.5
        pauses.append(now - start)
    assert pauses[:4] == [FIRST_PAUSE_S, 2, 4, 8]
    assert pauses[-1] == LONGEST_PAUSE_S
    health.succeeded()
    health.failed("again", now)
    assert health.fault(now + FIRST_PAUSE_S) is None


@pytest.mark.parametrize(
    ("url", "nearby"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://10.1.2.3/v1", True),
        ("http://192.168.0.7:8000", True),
        ("http://vllm:8000/v1", True),
        ("http://vllm.llm.svc:8000/v1", True),
        ("http://gpu.internal/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://openrouter.ai/api/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_only_what_is_nearby_is_probed(url: str, nearby: bool) -> None:
    """A paid service never gets a request that no user asked for."""
    assert is_nearby(url) is nearby
