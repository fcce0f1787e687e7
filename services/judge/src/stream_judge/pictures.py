"""The two pictures: reliability of a calibration, and the cost-quality curve. Needs matplotlib, asked for only here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_core.errors import ConfigError
from stream_judge.goals import Point

if TYPE_CHECKING:
    from collections.abc import Callable

_BINS = 10
Pairs = Sequence[tuple[float, float]]
"""(probability, outcome)."""


def draw_reliability(path: Path, before: Mapping[str, Pairs], after: Mapping[str, Pairs]) -> None:
    """Draw what the judge said against what came true, per tier, before and after.

    Raises:
        ConfigError: no matplotlib, or the file can't be written.
    """
    figure, axes = _canvas(len(before))
    for axis, tier in zip(axes, sorted(before), strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, pairs in (("before", before[tier]), ("after", after[tier])):
            said, came = reliability(pairs)
            axis.plot(said, came, marker="o", label=name)
        axis.set(title=tier, xlabel="judge's probability", ylabel="share of good answers", xlim=(0, 1), ylim=(0, 1))
        axis.legend()
    _save(figure, path)


def draw_curve(path: Path, points: Sequence[Point], picked: Point) -> None:
    """Draw quality against the share of requests that reach the cloud, and the point that was picked.

    Raises:
        ConfigError: no matplotlib, or the file can't be written.
    """
    figure, (axis,) = _canvas(1)
    ordered = sorted(points, key=lambda point: point.cloud_share)
    axis.plot([100 * point.cloud_share for point in ordered], [100 * point.of_cloud for point in ordered])
    axis.plot([100 * picked.cloud_share], [100 * picked.of_cloud], marker="o", linestyle="none")
    axis.annotate(f"good_enough {picked.threshold:.2f}", (100 * picked.cloud_share, 100 * picked.of_cloud))
    axis.set(xlabel="% of requests to the cloud", ylabel="% of the cloud's quality")
    _save(figure, path)


def reliability(pairs: Pairs) -> tuple[list[float], list[float]]:
    """Mean probability and share of good answers in ten equal bins; empty bins are left out."""
    said, came = [], []
    for index in range(_BINS):
        held = [pair for pair in pairs if min(_BINS - 1, int(pair[0] * _BINS)) == index]
        if held:
            said.append(sum(chance for chance, _ in held) / len(held))
            came.append(sum(good for _, good in held) / len(held))
    return said, came


def _canvas(columns: int) -> "tuple[Any, Any]":
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (heavy, and only for pictures)
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install 'stream-judge[plots]'", param="--picture") from error
    make: Callable[..., Any] = Figure
    figure = make(figsize=(5 * columns, 4.5), layout="constrained")
    return figure, [figure.add_subplot(1, columns, index + 1) for index in range(columns)]


def _save(figure: "Any", path: Path) -> None:
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", param="--picture") from error
