"""What a process counts, for Prometheus: counters, histograms, gauges, and their text (format 0.0.4).

Made for the hot path: one sum behind a tuple of label values, no lock, since one thread counts. Label values come from
closed sets (tiers, models, clusters, kinds of faults), never from a peer's input, so their number is bounded by the
deployment. A library would do the same with a lock and a lookup by name for each value.
"""

import os
import sys
import time
from bisect import bisect_left
from collections import Counter as Sums
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

Labels = tuple[str, ...]
Read = Callable[[], Mapping[Labels, float]]
"""Values of a gauge, or of a sum that is kept elsewhere, by label values."""

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Bounds for what a person waits for."""
FINE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for a call between services, or between two tokens."""
SHARES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Bounds for a probability."""


class Metric(Protocol):
    """What the registry writes."""

    name: str

    def lines(self) -> Iterator[str]:
        """Yield its text, line by line."""
        ...


class Registry:
    """All metrics of a process."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def add(self, metric: Metric) -> None:
        """Take a metric in; one of the same name is replaced."""
        self._metrics[metric.name] = metric

    def text(self) -> bytes:
        """Write all of them, in the order of their names."""
        lines = (line for name in sorted(self._metrics) for line in self._metrics[name].lines())
        return "".join(f"{line}\n" for line in lines).encode()


REGISTRY: Final = Registry()
"""Of this process."""


class Counter:
    """A sum that only grows.

    Args:
        name: ends with "_total".
        help_: one sentence.
        labels: their names.
    """

    def __init__(self, name: str, help_: str, labels: Sequence[str] = (), *, registry: Registry = REGISTRY) -> None:
        self.name = name
        self._head = _head(name, help_, "counter")
        self._labels = tuple(labels)
        self._sums: Sums[Labels] = Sums() if labels else Sums({(): 0})
        registry.add(self)

    def add(self, amount: float = 1, *values: str) -> None:
        """Add to the sum of these label values."""
        self._sums[values] += amount  # type: ignore[assignment]  # dollars are no whole numbers

    def sum(self, *values: str) -> float:
        """Tell the sum of these label values."""
        return self._sums[values]

    def lines(self) -> Iterator[str]:
        """Yield its text."""
        yield from self._head
        yield from _samples(self.name, self._labels, self._sums)


class Series:
    """The observations of one set of label values."""

    __slots__ = ("_bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Note a value; many equal ones at once cost no more than one."""
        self.buckets[bisect_left(self._bounds, value)] += times
        self.sum += value * times


class Histogram:
    """How values are spread.

    Args:
        name: with its unit.
        help_: one sentence.
        labels: their names.
        bounds: upper bounds of the buckets, ascending.
    """

    def __init__(
        self,
        name: str,
        help_: str,
        labels: Sequence[str] = (),
        bounds: Sequence[float] = SECONDS,
        *,
        registry: Registry = REGISTRY,
    ) -> None:
        self.name = name
        self._head = _head(name, help_, "histogram")
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._series: dict[Labels, Series] = {}
        registry.add(self)

    def of(self, *values: str) -> Series:
        """Find the series of these label values; keep it where many values come."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Series(self._bounds)
        return found

    def lines(self) -> Iterator[str]:
        """Yield its text: buckets count all that is below their bound."""
        yield from self._head
        for values, series in sorted(self._series.items()):
            seen = 0
            for bound, count in zip((*map(_number, self._bounds), "+Inf"), series.buckets, strict=True):
                seen += count
                yield f"{self.name}_bucket{_braces((*self._labels, 'le'), (*values, bound))} {seen}"
            braces = _braces(self._labels, values)
            yield f"{self.name}_sum{braces} {_number(series.sum)}"
            yield f"{self.name}_count{braces} {seen}"


class Gauge:
    """What is read when somebody asks.

    Args:
        name: of the metric.
        help_: one sentence.
        read: gives the values; must not block.
        labels: their names.
        kind: "gauge", or "counter" for a sum that is kept elsewhere.
    """

    def __init__(
        self,
        name: str,
        help_: str,
        read: Read,
        labels: Sequence[str] = (),
        *,
        kind: str = "gauge",
        registry: Registry = REGISTRY,
    ) -> None:
        self.name = name
        self._head = _head(name, help_, kind)
        self._labels = tuple(labels)
        self._read = read
        registry.add(self)

    def lines(self) -> Iterator[str]:
        """Yield its text."""
        yield from self._head
        yield from _samples(self.name, self._labels, self._read())


def single(value: Callable[[], float]) -> Read:
    """Make the reading of a gauge without labels."""
    return lambda: {(): value()}


def describe_process(service: str, version: str) -> None:
    """Tell which program this is, and what it uses of the machine.

    Args:
        service: its name.
        version: of its package.
    """
    began = time.time()
    Gauge("stream_build_info", "Which program this is.", lambda: {(service, version): 1}, ("service", "version"))
    Gauge("process_start_time_seconds", "When it started, unix seconds.", single(lambda: began))
    Gauge("stream_clock_seconds", "Its clock, unix seconds.", single(time.time))
    Gauge("process_cpu_seconds_total", "CPU time that it has used.", single(time.process_time), kind="counter")
    if sys.platform == "linux":
        Gauge("process_resident_memory_bytes", "Memory that it holds.", single(_resident_bytes))


def _resident_bytes() -> float:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0.0


def _head(name: str, help_: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {help_}", f"# TYPE {name} {kind}"


def _samples(name: str, labels: Labels, values: Mapping[Labels, float]) -> Iterator[str]:
    for key, value in sorted(values.items()):
        yield f"{name}{_braces(labels, key)} {_number(value)}"


def _braces(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
