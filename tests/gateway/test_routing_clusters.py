"""The policy where clusters come in: names, what a key may use, and models whose workers are not there yet."""

import pytest

from stream_core.deployment import PolicyConfig
from stream_core.errors import ModelNotFound, NotAllowed, UpstreamUnavailable
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.routing import Ask, ModelView, Pin, Plan, TierView, Waking, permitted, refusal, resolve, route
from stream_gateway.standing import Standing

POLICY = PolicyConfig()
HOT = Standing("hot", ready=1)
WAIT = Standing("cold", room=1, cold_start="wait")
NEXT = Standing("cold", room=1, cold_start="next")
OFFLINE = Standing("offline", "its endpoint is offline", cold_start="wait")


def view(model: str, **clusters: Standing) -> ModelView:
    return ModelView(OfferedModel(model, 8192), None, tuple(clusters.items()))


def plain(name: str, fault: str | None = None) -> TierView:
    return TierView(name, "public", (ModelView(OfferedModel(f"{name}-model", 8192), fault),))


def hpc(*models: ModelView) -> TierView:
    return TierView("hpc", "restricted", models)


def names(plan: Plan) -> list[tuple[str, bool]]:
    return [(f"{candidate.tier}/{candidate.model.id}", candidate.waits) for candidate in plan.candidates]


TREE = hpc(
    view("meta/llama", alpha=HOT, beta=HOT),
    view("llama", alpha=HOT),
    view("alpha/llama", beta=HOT),
    view("beta/odd", alpha=HOT),
)


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        ("hpc/meta/llama", Pin("hpc", "meta/llama")),
        ("hpc/alpha/meta/llama", Pin("hpc", "meta/llama", "alpha")),
        ("hpc/beta/meta/llama", Pin("hpc", "meta/llama", "beta")),
        ("hpc/llama", Pin("hpc", "llama")),
        ("hpc/alpha/llama", Pin("hpc", "llama", "alpha")),
        ("hpc/beta/alpha/llama", Pin("hpc", "alpha/llama", "beta")),
        ("hpc/beta/odd", Pin("hpc", "beta/odd")),
        ("hpc/alpha/beta/odd", Pin("hpc", "beta/odd", "alpha")),
        ("meta/llama", Pin("hpc", "meta/llama")),
    ],
)
def test_a_cluster_is_read_before_a_model(name: str, pin: Pin) -> None:
    """With models whose names have slashes each name means one thing: a cluster that offers the rest, else a model."""
    assert resolve(name, [TREE], None) == pin


@pytest.mark.parametrize("name", ["hpc/gamma/llama", "hpc/beta/llama", "alpha/meta/llama", "hpc/alpha", "hpc/alpha/"])
def test_no_such_cluster_or_not_there(name: str) -> None:
    """A cluster that is not there, or does not offer the model, is 404: it never means another cluster."""
    with pytest.raises(ModelNotFound):
        resolve(name, [TREE], None)


def test_a_key_sees_its_clusters_only() -> None:
    """Models that are only on other clusters are not shown, not found by their bare name, 403 where named."""
    mine = frozenset({"beta"})
    ask = Ask(Pin(), "public", clusters=mine)
    (shown,) = permitted(ask, [TREE], POLICY)
    assert [(seen.model.id, [name for name, _ in seen.clusters]) for seen in shown.models] == [
        ("meta/llama", ["beta"]),
        ("alpha/llama", ["beta"]),
    ]
    with pytest.raises(ModelNotFound):
        resolve("llama", [TREE], None, mine)
    for pin, words in (
        (Pin("hpc", "llama"), "'hpc/llama' is on 'alpha'"),
        (Pin("hpc", "llama", "alpha"), "may not use the cluster 'alpha'"),
    ):
        plan = route(Ask(pin, "public", clusters=mine), [TREE, plain("cloud")], POLICY, {})
        assert plan.candidates == ()
        assert isinstance(refusal(plan), NotAllowed)
        assert words in refusal(plan).message
    assert Ask(Pin("hpc", "m", "beta"), "public", clusters=mine).allowed_clusters == mine
    assert Ask(Pin("hpc", "m", "alpha"), "public").allowed_clusters == {"alpha"}


def test_a_cold_tier_is_waited_for_by_its_policy() -> None:
    """`wait`: the tier keeps its place in the order, and the request waits there; nothing is woken besides."""
    plan = route(Ask(Pin(), "public"), [hpc(view("m", alpha=WAIT)), plain("cloud")], POLICY, {"hpc": 1, "cloud": 1})
    assert names(plan) == [("hpc/m", True), ("cloud/cloud-model", True)]
    assert plan.waking == ()


def test_a_cold_tier_is_passed_over_by_its_policy() -> None:
    """`next`: the next tier answers, the cold one is woken, and is waited for only when nobody else is left."""
    tiers = [hpc(view("m", alpha=NEXT)), plain("cloud")]
    plan = route(Ask(Pin(), "public"), tiers, POLICY, {"hpc": 1, "cloud": 1})
    assert names(plan) == [("cloud/cloud-model", True), ("hpc/m", True)]
    assert plan.waking == (Waking("hpc", "m", "cold"),)
    plan = route(Ask(Pin(), "public"), [tiers[0], plain("cloud", "down")], POLICY, {"hpc": 1, "cloud": 1})
    assert names(plan) == [("hpc/m", True)]
    assert plan.waking == (), "waiting asks for it already"


def test_a_tier_that_would_not_have_been_asked_is_not_woken() -> None:
    """A cheaper tier that is good enough answers: nothing starts on the cluster for it."""
    tiers = [plain("local"), hpc(view("m", alpha=NEXT))]
    assert route(Ask(Pin(), "public"), tiers, POLICY, {"local": 1, "hpc": 1}).waking == ()
    assert route(Ask(Pin(), "public"), tiers, POLICY, {"local": 0, "hpc": 1}).waking == (Waking("hpc", "m", "cold"),)


def test_a_tier_that_may_not_see_the_request_is_not_woken() -> None:
    """Neither privacy, nor the key's tiers, nor its clusters are widened by waking."""
    cold = TierView("hpc", "public", (view("m", alpha=NEXT),))
    safe = TierView("local", "restricted", plain("local").models)
    for ask in (
        Ask(Pin(), "internal"),
        Ask(Pin(), "public", frozenset({"local"})),
        Ask(Pin(), "public", clusters=frozenset({"beta"})),
        Ask(Pin("local"), "public"),
    ):
        plan = route(ask, [cold, safe], POLICY, {"hpc": 1, "local": 1})
        assert names(plan) == [("local/local-model", True)]
        assert plan.waking == ()


@pytest.mark.parametrize("standing", [WAIT, NEXT], ids=["wait", "next"])
@pytest.mark.parametrize("pin", [Pin("hpc"), Pin("hpc", "m"), Pin("hpc", "m", "alpha")], ids=str)
def test_who_names_it_waits(pin: Pin, standing: Standing) -> None:
    """Whatever the policy, a request that names tier, cluster or model waits, and goes nowhere else."""
    plan = route(Ask(pin, "public"), [hpc(view("m", alpha=standing)), plain("cloud")], POLICY, {})
    assert names(plan) == [("hpc/m", True)]


def test_a_hot_model_of_the_same_tier_goes_before_a_cold_one() -> None:
    """`next` within a tier: its second model answers while the default wakes; `wait` keeps the default."""
    for first, answers in ((NEXT, "other"), (WAIT, "m")):
        tier = hpc(view("m", alpha=first), view("other", alpha=HOT))
        plan = route(Ask(Pin(), "public"), [tier], POLICY, {"hpc": 1})
        assert plan.candidates[0].model.id == answers
        assert bool(plan.waking) == (answers == "other")


def test_a_hot_tier_that_is_full() -> None:
    """With `next` a full tier does not hold `auto` up while another tier is left; with `wait` it may."""
    for standing, waits in ((Standing("hot", ready=1, cold_start="next"), False), (HOT, True)):
        plan = route(Ask(Pin(), "public"), [hpc(view("m", alpha=standing)), plain("cloud")], POLICY, {"hpc": 1})
        assert names(plan)[0] == ("hpc/m", waits)


def test_offline_is_out_and_hears_of_it() -> None:
    """`auto` does not wait for an offline model; hpc_dispatch is told, since that may start its next try."""
    tiers = [hpc(view("m", alpha=OFFLINE)), plain("cloud")]
    plan = route(Ask(Pin(), "public"), tiers, POLICY, {"hpc": 1, "cloud": 1})
    assert names(plan) == [("cloud/cloud-model", True)]
    assert plan.waking == (Waking("hpc", "m", "offline"),)
    error = refusal(route(Ask(Pin(), "public"), tiers[:1], POLICY, {}))
    assert isinstance(error, UpstreamUnavailable)
    assert "its endpoint is offline" in error.message
