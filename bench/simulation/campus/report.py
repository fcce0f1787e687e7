"""What a simulation's results say: figures, a table, a plot."""

import datetime
from pathlib import Path

import matplotlib as mpl

from campus import trace
from campus.simulation import Result
from campus.workload import DAY_S, START, Workload
from campus.world import Cluster

mpl.use("Agg")
from matplotlib import pyplot as plt


def clusters_of(seed: int) -> list[Cluster]:
    """Two clusters: one that is preferred, one with less time; each with a trace of its own."""
    return [
        Cluster("alpha", priority=1, hours_a_day=72.0, trace=trace.generate(seed)),
        Cluster("beta", priority=0, hours_a_day=48.0, trace=trace.generate(seed + 10_000)),
    ]


def figures(result: Result) -> dict[str, float]:
    """The figures of one run."""
    first = sorted(result.first_token_s)
    refused = sum(result.refused.values())
    return {
        "hot_hit": result.at_once / (len(first) + refused),
        "first_token_p50_s": first[len(first) // 2],
        "first_token_p95_s": first[int(len(first) * 0.95)],
        "first_token_p999_s": first[int(len(first) * 0.999)],
        "gpu_hours": result.hours,
        "jobs": result.jobs,
        "failed_jobs": result.failed,
        "refused": refused,
        "moved": result.moved,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """One line for each policy."""
    lines = [f"{'policy':<12}{'hot':>9}{'p50 s':>8}{'p95 s':>8}{'p99.9 s':>9}{'GPU-h':>8}{'jobs':>7}{'refused':>9}"]
    lines += [
        f"{name:<12}{row['hot_hit']:>9.2%}{row['first_token_p50_s']:>8.2f}{row['first_token_p95_s']:>8.2f}"
        f"{row['first_token_p999_s']:>9.1f}{row['gpu_hours']:>8,.0f}{row['jobs']:>7,.0f}{row['refused']:>9,.0f}"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def plot(results: dict[str, Result], rows: dict[str, dict[str, float]], workload: Workload, file: Path) -> None:
    """Draw cost beside quality, the tail of the first token, and a week of load and workers."""
    figure, (top, below) = plt.subplots(2, 2, figsize=(13, 8), gridspec_kw={"width_ratios": [1, 1.3]})
    names = list(rows)
    colours = dict(zip(names, ("tab:blue", "tab:gray", "tab:orange", "tab:green"), strict=True))
    for name in names:
        x, y = rows[name]["gpu_hours"], 1 - rows[name]["hot_hit"]
        top[0].scatter(x, max(y, 1e-6), s=70, color=colours[name])
        top[0].annotate(name, (x, max(y, 1e-6)), textcoords="offset points", xytext=(7, 5))
        first = sorted(results[name].first_token_s)
        shares = [index / len(first) for index in range(0, len(first), max(1, len(first) // 5000))]
        top[1].plot(
            [first[int(share * len(first))] for share in shares],
            [1 - share for share in shares],
            label=name,
            color=colours[name],
        )
    top[0].set(xlabel="GPU-hours", ylabel="share of requests that waited for a worker", yscale="log")
    top[0].margins(x=0.25, y=0.2)
    top[1].set(xlabel="first token, s", ylabel="share that took longer", xscale="log", yscale="log")
    top[1].legend()
    _week(below[0], results["stream"], workload)
    for name in names:
        days = [(at - START) / DAY_S for at, _, _ in results[name].workers if at < START + 7 * DAY_S]
        below[1].plot(
            days, [ready for _, ready, _ in results[name].workers[: len(days)]], label=name, lw=1, color=colours[name]
        )
    below[1].set(xlabel="day of the first week", ylabel="workers ready")
    below[1].legend(loc="upper right", ncols=2)
    for axes in (*top, *below):
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"{len(workload.arrivals):,} requests of {workload.users:,} users in {workload.days} days, two clusters"
    )
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _week(axes: "plt.Axes", result: Result, workload: Workload) -> None:
    shown = [sample for sample in result.workers if sample[0] < START + 7 * DAY_S]
    days = [(at - START) / DAY_S for at, _, _ in shown]
    axes.fill_between(days, [load for _, _, load in shown], color="tab:blue", alpha=0.3, label="requests under way")
    axes.plot(days, [8 * ready for _, ready, _ in shown], color="tab:blue", lw=1, label="places on ready workers")
    first = datetime.datetime.fromtimestamp(workload.arrivals[0], datetime.UTC)
    axes.set(xlabel=f"day of the first week, from {first:%A}", ylabel="stream: requests at once")
    axes.legend(loc="upper right")
