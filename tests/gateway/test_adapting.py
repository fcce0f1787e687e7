"""The cloud's share under drift: followed, bounded, and never against privacy or pins."""

import random

import pytest

from stream_core.deployment import PolicyConfig
from stream_gateway.adapting import RATE, CloudShare
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.routing import Ask, ModelView, Pin, TierView, route

MODEL = ModelView(OfferedModel("m", 8192))
TIERS = [TierView("local", "restricted", (MODEL,)), TierView("cloud", "public", (MODEL,))]


def share_of(keeper: CloudShare, policy: PolicyConfig, scores: list[float], ask: Ask) -> float:
    """Route requests whose P(local) is given, and tell the share that went to the cloud."""
    went = 0
    for score in scores:
        plan = route(ask, TIERS, keeper.adapted(policy), {"local": score, "cloud": 0.95})
        keeper.observe(plan, policy.cloud_share)
        went += plan.candidates[0].tier == "cloud"
    return went / len(scores)


@pytest.mark.parametrize("wanted", [0.0, 0.05, 0.15, 0.5, 0.9])
def test_share_holds_under_drift(wanted: float) -> None:
    """Easy traffic that turns hard, and back: the share stays what was asked for, within the bound of the method."""
    draw = random.Random(1)  # noqa: S311  (repeatable, nothing secret)
    keeper, policy = CloudShare(), PolicyConfig(good_enough=0.6, cloud_share=wanted)
    for low, high in ((0.5, 1.0), (0.0, 0.4), (0.3, 0.9)):
        scores = [draw.uniform(low, high) for _ in range(2000)]
        assert share_of(keeper, policy, scores, Ask(Pin(), "public")) == pytest.approx(
            wanted, abs=2 * (1 + RATE) / (RATE * 2000)
        )


def test_private_requests_stay_and_teach_nothing() -> None:
    """With everything wanted in the cloud, what it may not see does not go there and moves no threshold."""
    keeper, policy = CloudShare(), PolicyConfig(good_enough=0.6, cloud_share=1.0)
    assert share_of(keeper, policy, [0.1] * 100, Ask(Pin(), "restricted")) == 0
    assert keeper.adapted(policy).good_enough == 0.6


def test_without_a_share_the_policy_is_untouched() -> None:
    """No wish, no movement; a policy that was edited starts afresh."""
    keeper, policy = CloudShare(), PolicyConfig(good_enough=0.6)
    assert share_of(keeper, policy, [0.1] * 100, Ask(Pin(), "public")) == 1
    assert keeper.adapted(policy) is policy
    wished = PolicyConfig(good_enough=0.7, cloud_share=0.1)
    assert keeper.adapted(wished).good_enough == 0.7
