"""What a program counts, as Prometheus reads it."""

import time

import pytest

from stream_core.health import open_here
from stream_core.metrics import Counter, Gauge, Histogram, Registry, describe_process


def test_the_text():
    """Counters, histograms whose buckets add up, gauges; label values are escaped; names come in order."""
    registry = Registry()
    waits = Histogram("wait_seconds", "Waits.", ("tier",), (0.5, 1.0), registry=registry)
    asked = Counter("asked_total", "Asked.", ("who",), registry=registry)
    Gauge("open", "Open.", lambda: {(): 2.5}, registry=registry)
    asked.add(1, 'a "b"\\\n')
    asked.add(2.5, "c")
    for value, times in ((0.5, 1), (0.7, 3), (9.0, 1)):
        waits.of("hpc").observe(value, times)
    assert registry.text().decode().splitlines() == [
        "# HELP asked_total Asked.",
        "# TYPE asked_total counter",
        r'asked_total{who="a \"b\"\\\n"} 1',
        'asked_total{who="c"} 2.5',
        "# HELP open Open.",
        "# TYPE open gauge",
        "open 2.5",
        "# HELP wait_seconds Waits.",
        "# TYPE wait_seconds histogram",
        'wait_seconds_bucket{tier="hpc",le="0.5"} 1',
        'wait_seconds_bucket{tier="hpc",le="1"} 4',
        'wait_seconds_bucket{tier="hpc",le="+Inf"} 5',
        f'wait_seconds_sum{{tier="hpc"}} {0.5 + 0.7 * 3 + 9.0}',
        'wait_seconds_count{tier="hpc"} 5',
    ]


def test_a_metric_knows_its_labels():
    """A value too few or too many is a fault of ours, and not a wrong series."""
    registry = Registry()
    Counter("asked_total", "Asked.", ("who",), registry=registry).add(1)
    with pytest.raises(ValueError, match="shorter"):
        registry.text()


def test_a_process_describes_itself():
    """Which program, since when, and what it uses."""
    describe_process("test", "1.2.3")
    from stream_core.metrics import REGISTRY  # noqa: PLC0415

    lines = dict(line.rsplit(" ", 1) for line in REGISTRY.text().decode().splitlines() if not line.startswith("#"))
    assert lines['stream_build_info{service="test",version="1.2.3"}'] == "1"
    assert float(lines["process_cpu_seconds_total"]) > 0
    assert float(lines["process_resident_memory_bytes"]) > 1_000_000
    assert abs(float(lines["process_start_time_seconds"]) - time.time()) < 60


@pytest.mark.parametrize(
    ("host", "port", "headers", "here"),
    [
        ("127.0.0.1", None, ["host", "accept"], True),
        ("::1", None, [], True),
        ("localhost", None, [], True),
        ("0.0.0.0", None, [], False),
        ("10.1.2.3", None, [], False),
        ("gateway.example", None, [], False),
        ("127.0.0.1", 9464, [], False),
        ("127.0.0.1", 0, [], False),
        ("127.0.0.1", None, ["x-forwarded-for"], False),
        ("127.0.0.1", None, ["host", "forwarded"], False),
    ],
)
def test_strangers_read_no_numbers(host, port, headers, here):
    """On a port for clients only this machine asks, and no proxy for somebody else; with a port of their own nobody."""
    assert open_here(host, port, headers) is here
