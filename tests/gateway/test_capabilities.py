"""Capabilities and kinds of requests in the policy: who is a candidate, and what a caller is told when nobody is."""

import pytest

from stream_core.deployment import PolicyConfig
from stream_core.errors import ModelNotFound, StreamError, Unsupported
from stream_core.openai.demands import Demand
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.routing import Ask, ModelView, Pin, TierView, refusal, route

POLICY = PolicyConfig()
MODELS = {
    "plain": frozenset[str](),
    "able": frozenset({"tools", "logprobs"}),
    "vectors": frozenset({"embeddings"}),
    "both": frozenset({"embeddings", "chat"}),
}
TOOLS, LOGPROBS = Demand("tools", "tools"), Demand("logprobs", "logprobs")
TIERS = [
    TierView(name, "public", (ModelView(OfferedModel(name, 8192, capabilities=found)),))
    for name, found in MODELS.items()
]


@pytest.mark.parametrize(
    ("task", "demands", "expected"),
    [
        ("chat", (), ["plain", "able", "both"]),
        ("chat", (TOOLS,), ["able"]),
        ("chat", (TOOLS, LOGPROBS), ["able"]),
        ("chat", (Demand("store", "store"),), []),
        ("embeddings", (), ["vectors", "both"]),
        ("moderations", (), []),
    ],
)
def test_who_is_a_candidate(task: str, demands: tuple[Demand, ...], expected: list[str]) -> None:
    """Only models that have every capability asked for and do this kind of request, the cheapest first."""
    plan = route(Ask(Pin(), "public", demands=demands, task=task), TIERS, POLICY, dict.fromkeys(MODELS, 1.0))
    assert [candidate.tier for candidate in plan.candidates] == expected


@pytest.mark.parametrize(
    ("pin", "task", "demand", "kind", "param"),
    [
        (Pin("plain"), "chat", TOOLS, Unsupported, "tools"),
        (Pin(), "chat", Demand("store", "store"), Unsupported, "store"),
        (Pin("vectors"), "chat", TOOLS, ModelNotFound, "model"),
        (Pin("plain"), "embeddings", TOOLS, ModelNotFound, "model"),
    ],
)
def test_what_a_caller_is_told(pin: Pin, task: str, demand: Demand, kind: type[StreamError], param: str) -> None:
    """A field that can't be honoured is 400 by its name; a model of another kind is 404."""
    plan = route(Ask(pin, "public", demands=(demand,), task=task), TIERS, POLICY, {})
    assert not plan.candidates
    error = refusal(plan)
    assert (type(error), error.param) == (kind, param)
