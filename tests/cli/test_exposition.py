"""Prometheus' text, read back; what happened between two looks."""

import math

import pytest

from stream_cli.exposition import Reading, Sample, quantile, read
from stream_cli.top import Look, between
from stream_core.metrics import Counter, Histogram, Registry


def test_what_our_programs_write_is_read():
    """Names, labels with odd characters, numbers; comments and junk are passed over."""
    registry = Registry()
    Counter("a_total", "A.", ("who",), registry=registry).add(3, 'x "y"\\\nz')
    Counter("b_total", "B.", registry=registry).add(0.5)
    text = registry.text().decode() + "junk\n\n# more\n"
    assert read(text) == [
        Sample("a_total", frozenset({("who", 'x "y"\\\nz')}), 3.0),
        Sample("b_total", frozenset(), 0.5),
    ]


def test_replicas_are_added_up():
    """The same series of two programs is one sum."""
    reading = Reading([*read('open{a="1"} 2\nopen{a="2"} 3\n'), *read('open{a="1"} 5\n')])
    assert reading.sum("open") == 10
    assert reading.sum("open", a="1") == 7
    assert reading.values("open", "a") == ["1", "2"]


def test_quantiles():
    """Within a bucket by a straight line; only what came between the readings; past the last bound its bound."""
    now = {0.1: 0.0, 0.2: 100.0, math.inf: 100.0}
    assert quantile(0.5, now, {}) == pytest.approx(0.15)
    assert quantile(0.5, now, now) is None
    assert quantile(0.5, {}, {}) is None
    assert quantile(0.99, {0.1: 1.0, math.inf: 100.0}, {}) == 0.1
    later, earlier = {0.1: 10.0, 0.2: 20.0, math.inf: 20.0}, {0.1: 10.0, 0.2: 10.0, math.inf: 10.0}
    assert quantile(0.5, later, earlier) == pytest.approx(0.15)


def test_between_two_looks():
    """Rates are of the span between; failures neither completed nor left; without an earlier look all counts."""
    waits = Histogram("stream_first_token_seconds", "W.", ("tier",), (0.1, 0.2), registry=(registry := Registry()))

    def seen(complete: int, broken: int, at: float) -> Look:
        waits.of("hpc").observe(0.15, 10)
        text = (
            f'stream_requests_total{{tier="hpc",model="m",cluster="c",ended="complete"}} {complete}\n'
            f'stream_requests_total{{tier="hpc",model="m",cluster="c",ended="stream_broken"}} {broken}\n'
            'stream_tier_up{tier="hpc"} 1\nstream_gateway_open_streams 4\n'
            'stream_pilots{cluster="c",model="m",state="ready"} 2\n'
            'stream_pilots{cluster="c",model="m",state="lost"} 0\n'
            'stream_pool_running_requests{cluster="c",model="m"} 3\n'
        )
        return Look(at, Reading(read(text + registry.text().decode())), [])

    first, second = seen(10, 0, 1.0), seen(30, 10, 6.0)
    (tier,) = between(second, first).tiers
    assert (tier.name, tier.up, tier.requests, tier.failed) == ("hpc", True, 6.0, 2.0)
    assert tier.first_token_p50_s is not None
    assert 0.1 < tier.first_token_p50_s < 0.2
    now = between(second, None)
    assert (now.tiers[0].requests, now.streams) == (40, 4)
    assert (now.pools[0].pilots, now.pools[0].running) == ({"ready": 2}, 3)
