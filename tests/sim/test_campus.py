"""The planner over simulated days, at small scale: what must hold whatever comes, and what it is for."""

import pytest
from campus import report, trace, workload
from campus.simulation import Simulation
from campus.world import POLICIES, STREAM, Cluster, Policy, Troubles
from msgspec.structs import replace

BAD_DAYS = Troubles(submit_error=0.1, start_failure=0.1, killed_each_s=4 * 3600, outage_each_s=8 * 3600, outage_s=1800)


def small(seed, requests=2000):
    """A day of a small campus."""
    return workload.generate(seed, days=1, requests=requests, users=500)


def play(policy, seed, troubles=BAD_DAYS, *, hours=(12.0, 8.0)):
    """One policy through the small campus."""
    clusters = [
        Cluster(name, priority, limit, trace.generate(seed + priority))
        for name, priority, limit in zip(("alpha", "beta"), (1, 0), hours, strict=True)
    ]
    return Simulation(policy, clusters, small(seed), troubles, seed).run()


@pytest.mark.parametrize(("policy", "seed"), [(STREAM, 1), (STREAM, 2), (POLICIES[2], 1)])
def test_what_holds_on_bad_days(policy, seed):
    """Tight budgets, outages, kills: never over budget or max, no orphan, no thrashing, each request has its end."""
    result = play(policy, seed)
    assert {what: count for what, count in result.broken.items() if count} == {}
    assert len(result.first_token_s) + sum(result.refused.values()) >= 2000
    assert result.failed > 0
    assert max(result.node_s.values()) > 4 * 3600
    assert all(reason for reason in result.refused)


def test_the_checks_can_fail():
    """A budget of which the plan knows nothing is overspent, and the simulation says so."""

    class Spendthrift(Policy):
        def cluster(self, cluster):
            spec = super().cluster(cluster)
            return spec if known else replace(spec, node_s_per_day=None)

    known = False
    policy = Spendthrift("spendthrift", min_ready=1, max_workers=2, idle_timeout_s=900)
    clusters = [Cluster("alpha", 1, 3.0, trace.generate(1)), Cluster("beta", 0, 3.0, trace.generate(2))]
    simulation = Simulation(policy, clusters, small(1, 500), Troubles(), 1)
    known = True
    assert simulation.run().broken["above the budget"] > 0


def test_every_policy_is_played_on_the_same_requests():
    """The comparison repeats itself, and shows what it is about: fewer hours than always-on, hotter than on-demand."""
    rows = {policy.name: report.figures(play(policy, 3, Troubles(), hours=(None, None))) for policy in POLICIES}
    again = report.figures(play(STREAM, 3, Troubles(), hours=(None, None)))
    assert again == rows["stream"]
    assert rows["stream"]["gpu_hours"] < rows["always-on"]["gpu_hours"] / 2
    assert rows["stream"]["hot_hit"] > rows["on-demand"]["hot_hit"]


def test_a_trace_is_made_up_and_read_back(tmp_path):
    """The same seed gives the same waits, with a tail; a file of one's own cluster can take its place."""
    made = trace.generate(1)
    assert made == trace.generate(1) != trace.generate(2)
    waits = sorted(wait for hour in made for wait in hour)
    assert waits[len(waits) // 2] < 120
    assert waits[int(len(waits) * 0.98)] > 1200
    trace.write(made, tmp_path / "trace.csv")
    assert trace.read(tmp_path / "trace.csv") == [[round(wait, 1) for wait in hour] for hour in made]
