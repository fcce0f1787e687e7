"""Prometheus' text format, read: samples by name, rates and quantiles between two readings. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

Labels = frozenset[tuple[str, str]]
_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_BOUND: Final = "le"


class Sample(NamedTuple):
    """One value."""

    name: str
    labels: Labels
    value: float

    def label(self, name: str) -> str:
        """Give one label's value; empty when it has none."""
        return dict(self.labels).get(name, "")


class Reading:
    """What several programs told at one time; samples of the same name and labels are added up."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._sums: dict[str, dict[Labels, float]] = {}
        for sample in samples:
            of_name = self._sums.setdefault(sample.name, {})
            of_name[sample.labels] = of_name.get(sample.labels, 0.0) + sample.value

    def samples(self, name: str, **labels: str) -> list[Sample]:
        """List the samples of a name that have these labels."""
        wanted = frozenset(labels.items())
        return [Sample(name, own, value) for own, value in self._sums.get(name, {}).items() if wanted <= own]

    def sum(self, name: str, **labels: str) -> float:
        """Add up the samples of a name that have these labels."""
        return sum(sample.value for sample in self.samples(name, **labels))

    def values(self, name: str, label: str) -> list[str]:
        """List the values of a label, in their order."""
        return sorted({sample.label(label) for sample in self.samples(name)})

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Add up a histogram's buckets by their bounds."""
        found: dict[float, float] = {}
        for sample in self.samples(f"{name}_bucket", **labels):
            bound = float(sample.label(_BOUND))
            found[bound] = found.get(bound, 0.0) + sample.value
        return found


def read(text: str) -> list[Sample]:
    """Read samples; lines that are none are passed over."""
    found = []
    for line in text.splitlines():
        if match := _SAMPLE.match(line):
            labels = frozenset((name, _plain(value)) for name, value in _LABEL.findall(match[2] or ""))
            found.append(Sample(match[1], labels, float(match[3])))
    return found


def quantile(share: float, now: Mapping[float, float], before: Mapping[float, float]) -> float | None:
    """Estimate a quantile of what was observed between two readings, within its bucket by a straight line.

    Args:
        share: 0..1.
        now: counts by upper bound, each with all below it.
        before: an earlier reading; empty: since the program's start.
    """
    bounds = sorted(now)
    counts = [max(0.0, now[bound] - before.get(bound, 0.0)) for bound in bounds]
    if not counts or not counts[-1]:
        return None
    wanted, below, seen = share * counts[-1], 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count >= wanted:
            if bound == float("inf"):
                return below
            part = (wanted - seen) / (count - seen) if count > seen else 1.0
            return below + (bound - below) * part
        below, seen = bound, count
    return below


def _plain(value: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), value)
