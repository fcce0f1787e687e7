"""The cloud's budget: charged before, corrected after, closed in time, paced over the month."""

import datetime

import pytest

from stream_core.cluster_config import Price
from stream_core.deployment import PolicyConfig
from stream_core.errors import LimitExceeded
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.limits.estimate import dollars
from stream_gateway.routing import Ask, ModelView, Pin, TierView, refusal, route
from stream_gateway.spending import FRESH_S, REPLICAS, Spending

PRICE = Price(input=2.0, output=10.0)
MIDDLE = datetime.datetime(2026, 4, 16, tzinfo=datetime.UTC).timestamp()
"""Half of a month of 30 days."""


class Clock:
    """Seconds that pass when told."""

    def __init__(self, now: float = MIDDLE) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def spending(clock: Clock, total: float = 0.0) -> Spending:
    """What a replica knows that has heard of the sum."""
    known = Spending(clock)
    known.heard(known.month, total, 0.0)
    return known


def test_a_request_counts_with_what_it_may_cost_then_with_what_it_did() -> None:
    """The reserve gives way to the cost, once."""
    known = spending(Clock())
    known.begin(b"1", 0.044)
    assert known.spent() == pytest.approx(0.044)
    for _ in range(2):
        known.end(b"1", 0.007)
        assert known.spent() == pytest.approx(0.007)


def test_the_budget_holds_with_any_number_at_once() -> None:
    """Requests that are begun while others run never cost more than the budget, whatever they cost in the end."""
    known = spending(Clock())
    running = []
    for number in range(1000):
        need = dollars(PRICE, 1000, 1000)
        if not known.closed(1.0, need):
            known.begin(bytes([number % 256, number // 256]), need)
            running.append(bytes([number % 256, number // 256]))
    assert len(running) == 10
    assert "not for so much at once" in known.closed(1.0, need)
    for request_id in running:
        known.end(request_id, dollars(PRICE, 1000, 1000))
    assert known.spent() == pytest.approx(0.12)
    known.heard(known.month, 1.0 - need / 2, 0.12)
    assert known.closed(1.0, need) == "$0.99 of this month's $1.00 for the cloud are spent"


def test_as_many_replicas_as_there_may_be_hold_it_together() -> None:
    """Each spends what it may between two looks, and no sum of theirs is beyond the budget."""
    replicas = [spending(Clock()) for _ in range(REPLICAS)]
    total = 0.0
    for _ in range(200):
        for number, known in enumerate(replicas):
            while not known.closed(10.0, 0.01):
                known.begin(bytes([number]), 0.01)
                known.end(bytes([number]), dollars(PRICE, 5000, 0))
        for known in replicas:
            written = known.unwritten().get(known.month, 0.0)
            total += written
            known.heard(known.month, total, written)
        for known in replicas:
            known.heard(known.month, total, 0.0)
    assert 9.9 < total <= 10.0


def test_replicas_share_one_sum() -> None:
    """What another replica wrote counts here; what is unwritten here stays until it is written."""
    known = spending(Clock())
    known.begin(b"1", 0.3)
    assert known.unwritten() == {"2026-04": pytest.approx(0.3)}
    known.heard("2026-04", 5.3, 0.3)
    assert known.unwritten() == {}
    assert known.spent() == pytest.approx(5.3)


def test_nothing_is_spent_blindly() -> None:
    """A replica that has never heard of the sum, or not for long, spends nothing."""
    clock = Clock()
    assert "is not known" in Spending(clock).closed(100.0, 0.0)
    known = spending(clock)
    clock.now += FRESH_S
    assert known.closed(100.0, 0.0) == ""
    clock.now += 1
    assert "is not known" in known.closed(100.0, 0.0)


def test_a_new_month_begins_with_nothing_spent() -> None:
    """A request that ends in the next month is charged to its own one."""
    clock = Clock()
    known = spending(clock, 99.0)
    known.begin(b"1", 0.5)
    clock.now += 20 * 86_400
    assert known.spent() == 0.0
    known.end(b"1", dollars(PRICE, 0, 10_000))
    assert known.spent() == 0.0
    assert known.unwritten() == {"2026-04": pytest.approx(0.1)}


@pytest.mark.parametrize(("spent", "pace"), [(50.0, 1.0), (75.0, 0.5), (0.0, 2.0), (100.0, 0.0), (120.0, 0.0)])
def test_pace(spent: float, pace: float) -> None:
    """In the middle of the month, half of the budget spent is as planned; more slows down, less speeds up."""
    assert spending(Clock(), spent).pace(100.0) == pytest.approx(pace)


def test_who_names_the_cloud_gets_there() -> None:
    """A closed cloud is no candidate for `auto`, and the reason is told; a pin is obeyed."""
    cloud = TierView("cloud", "public", (ModelView(OfferedModel("m", 8192)),))
    closed, policy = {"cloud": "all is spent"}, PolicyConfig()
    plan = route(Ask(Pin(), "public"), [cloud], policy, {"cloud": 0.9}, closed)
    assert plan.candidates == ()
    assert [out.words for out in plan.excluded] == ["all is spent"]
    assert isinstance(refusal(plan), LimitExceeded)
    assert route(Ask(Pin("cloud"), "public"), [cloud], policy, {}, closed).candidates[0].tier == "cloud"
