"""The policy: every combination of pin, privacy, health, entitlement and modality, against the rules written anew."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_core.deployment import PolicyConfig
from stream_core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    StreamError,
    UpstreamUnavailable,
)
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.routing import (
    Ask,
    ModelView,
    Pin,
    Plan,
    TierView,
    Why,
    permitted,
    refusal,
    request_class,
    resolve,
    route,
)
from stream_gateway.standing import Standing

POLICY = PolicyConfig()
CLASSES = POLICY.classes
TEXT, VISION = frozenset({"text"}), frozenset({"text", "image"})
NAMES = ("local", "hpc", "cloud")
PRIVACY = {"local": "restricted", "hpc": "internal", "cloud": "public"}
MODELS = {"local": {"small": TEXT}, "hpc": {"large": TEXT, "eye": VISION}, "cloud": {"huge": VISION}}
SCORES = {"local": 0.5, "hpc": 0.7, "cloud": 0.9}

PINS = [Pin(), Pin("local"), Pin("hpc"), Pin("cloud"), Pin("hpc", "eye"), Pin("hpc", "large"), Pin("local", "small")]
SUBSETS = [frozenset(names) for size in range(4) for names in itertools.combinations(NAMES, size)]


def tiers(away: frozenset[str] = frozenset()) -> list[TierView]:
    return [
        TierView(
            name,
            PRIVACY[name],
            tuple(
                ModelView(OfferedModel(model, 8192, modalities), "it is down" if name in away else None)
                for model, modalities in MODELS[name].items()
            ),
        )
        for name in NAMES
    ]


def chosen(plan: Plan) -> list[str]:
    return [f"{candidate.tier}/{candidate.model.id}" for candidate in plan.candidates]


def expected(ask: Ask, away: frozenset[str]) -> list[str]:
    """The rules, written a second time: a tier's first model that fits, in the order of score and cost."""
    found = []
    for name in NAMES:
        may_see = name in (ask.tiers or ()) and CLASSES.index(PRIVACY[name]) >= CLASSES.index(ask.privacy)
        wanted = ask.pin.tier in {None, name}
        up = name not in away or ask.pin.tier is not None
        fitting = [m for m, can in MODELS[name].items() if ask.modalities <= can and ask.pin.model in {None, m}]
        if may_see and wanted and up and fitting:
            found.append((SCORES[name] < POLICY.good_enough, name, fitting[0]))
    return [f"{name}/{model}" for _, name, model in sorted(found, key=lambda item: item[0])]


@pytest.mark.parametrize("pin", PINS, ids=str)
@pytest.mark.parametrize("privacy", CLASSES)
def test_every_combination(pin: Pin, privacy: str) -> None:
    """Every pin, class, health, entitlement and modality gives the candidates that the rules give, in their order."""
    for away, entitled, modalities in itertools.product(SUBSETS, SUBSETS, (TEXT, VISION)):
        ask = Ask(pin, privacy, entitled, modalities)
        plan = route(ask, tiers(away), POLICY, SCORES)
        assert chosen(plan) == expected(ask, away), (away, entitled, modalities)
        named = {candidate.tier for candidate in plan.candidates} | {out.tier for out in plan.excluded}
        assert named == set(NAMES), "every tier is a candidate or left out with a reason"
        if not plan.candidates:
            error = refusal(plan)
            assert error.message
            assert error.status_hint in {400, 403, 503}


EVERYTHING = frozenset(NAMES)


@pytest.mark.parametrize(
    ("ask", "away", "kind", "words"),
    [
        (Ask(Pin("cloud"), "restricted", EVERYTHING), frozenset(), NotAllowed, "'restricted'"),
        (Ask(Pin("cloud"), "public", frozenset({"local"})), frozenset(), NotAllowed, "may not use the tier 'cloud'"),
        (Ask(Pin(), "public", frozenset()), frozenset(), NotAllowed, "may not use"),
        (Ask(Pin("local"), "public", EVERYTHING, VISION), frozenset(), InvalidRequest, "does not accept image"),
        (Ask(Pin(), "restricted", EVERYTHING, VISION), frozenset(), InvalidRequest, "does not accept image"),
        (Ask(Pin(), "public", EVERYTHING), EVERYTHING, UpstreamUnavailable, "it is down"),
        (Ask(Pin(), "public", EVERYTHING, VISION), frozenset({"hpc", "cloud"}), UpstreamUnavailable, "it is down"),
        (Ask(Pin("local"), "public", None, max_output=9_000), frozenset(), ContextLengthExceeded, "9,000"),
        (Ask(Pin("local"), "public", None, max_output=8_192), frozenset(), ContextLengthExceeded, "8,192"),
    ],
)
def test_refusals_say_what_can_be_mended(ask: Ask, away: frozenset[str], kind: type[StreamError], words: str) -> None:
    """Without a candidate the error is the one that the caller, or time, can mend, and names what is in the way."""
    plan = route(ask, tiers(away), POLICY, SCORES)
    assert not plan.candidates
    error = refusal(plan)
    assert type(error) is kind
    assert words in error.message


def test_without_tiers_nobody_answers() -> None:
    """An empty deployment is a 503 that says so."""
    error = refusal(route(Ask(Pin(), "public"), [], POLICY, {}))
    assert (error.status_hint, error.message) == (503, "no tier is configured")


def test_a_tier_without_models_is_away() -> None:
    """A tier whose workers have not come yet is unavailable, not unknown."""
    plan = route(Ask(Pin("hpc"), "public"), [TierView("hpc", "internal", ())], POLICY, {})
    assert plan.excluded[0].why is Why.HEALTH


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ({"local": 0.9, "hpc": 0.9, "cloud": 0.9}, ["local", "hpc", "cloud"]),
        ({"local": 0.1, "hpc": 0.6, "cloud": 0.9}, ["hpc", "cloud", "local"]),
        ({"local": 0.1, "hpc": 0.2, "cloud": 0.3}, ["cloud", "hpc", "local"]),
        ({"local": 0.5, "hpc": 0.5, "cloud": 0.5}, ["local", "hpc", "cloud"]),
        ({"local": 0.59, "hpc": 0.1, "cloud": 0.6}, ["cloud", "local", "hpc"]),
        ({}, ["local", "hpc", "cloud"]),
    ],
)
def test_score_before_cost(scores: dict[str, float], order: list[str]) -> None:
    """The cheapest tier that is good enough comes first; below the threshold the best; equals by cost."""
    plan = route(Ask(Pin(), "public"), tiers(), POLICY, scores)
    assert [candidate.tier for candidate in plan.candidates] == order


tier_views = st.lists(
    st.builds(
        TierView,
        name=st.sampled_from(["local", "edge", "hpc", "cloud", "partner"]),
        privacy=st.sampled_from([*CLASSES, "unknown"]),
        models=st.lists(
            st.builds(
                ModelView,
                model=st.builds(
                    OfferedModel,
                    id=st.sampled_from(["a", "b", "c"]),
                    context_window=st.sampled_from([256, 8192]),
                    modalities=st.sampled_from([TEXT, VISION]),
                ),
                fault=st.sampled_from([None, "down"]),
                clusters=st.dictionaries(
                    st.sampled_from(["alpha", "beta"]),
                    st.builds(
                        Standing,
                        state=st.sampled_from(["hot", "starting", "cold", "offline"]),
                        starting=st.integers(0, 1),
                        room=st.integers(0, 1),
                        cold_start=st.sampled_from(["wait", "next"]),
                    ),
                ).map(lambda found: tuple(found.items())),
            ),
            max_size=3,
        ).map(tuple),
    ),
    max_size=5,
    unique_by=lambda tier: tier.name,
)
asks = st.builds(
    Ask,
    pin=st.builds(Pin, st.sampled_from([None, "local", "edge", "hpc", "cloud"]), st.none())
    | st.builds(Pin, st.sampled_from(["hpc", "cloud"]), st.sampled_from(["a", "b", "nope"]))
    | st.builds(Pin, st.just("hpc"), st.sampled_from(["a", "b"]), st.sampled_from(["alpha", "beta"])),
    privacy=st.sampled_from([*CLASSES, "unknown"]),
    tiers=st.none() | st.frozensets(st.sampled_from(["local", "edge", "hpc", "cloud", "partner"])),
    modalities=st.sampled_from([TEXT, VISION]),
    max_output=st.none() | st.integers(1, 10_000),
    clusters=st.none() | st.frozensets(st.sampled_from(["alpha", "beta"])),
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(ask=asks, views=tier_views, scores=st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1)))
def test_nothing_widens_who_sees_a_prompt(ask: Ask, views: list[TierView], scores: dict[str, float]) -> None:
    """Whatever the deployment, no candidate is below the request's class, outside the key, or beside the pin."""
    plan = route(ask, views, POLICY, scores)
    by_name = {tier.name: tier for tier in views}
    for candidate in plan.candidates:
        tier = by_name[candidate.tier]
        assert ask.tiers is None or candidate.tier in ask.tiers
        assert CLASSES.index(tier.privacy) >= CLASSES.index(ask.privacy)
        assert ask.pin.tier in {None, candidate.tier}
        assert ask.pin.model in {None, candidate.model.id}
        assert ask.modalities <= candidate.model.modalities
        assert (ask.max_output or 0) < candidate.model.context_window
        offering = [view for view in tier.models if view.model == candidate.model]
        assert any(view.within(ask.allowed_clusters) for view in offering), "a cluster that may answer offers it"
        assert ask.pin.cluster is None or ask.clusters is None or ask.pin.cluster in ask.clusters
    assert {candidate.tier for candidate in plan.candidates} <= {tier.name for tier in permitted(ask, views, POLICY)}
    assert plan.candidates or refusal(plan).message


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        ("auto", Pin()),
        ("hpc", Pin("hpc")),
        ("hpc/eye", Pin("hpc", "eye")),
        ("huge", Pin("cloud", "huge")),
        ("lab/model-7b", Pin("edge", "lab/model-7b")),
        ("edge/lab/model-7b", Pin("edge", "lab/model-7b")),
    ],
)
def test_names_of_models(name: str, pin: Pin) -> None:
    """`auto`, a tier, `<tier>/<model>` and a model that one tier offers are understood."""
    edge = TierView("edge", "public", (ModelView(OfferedModel("lab/model-7b", 8192)),))
    assert resolve(name, [*tiers(), edge], None) == pin


@pytest.mark.parametrize("name", ["", "gpt-7", "local/huge", "cloud/", "/", "LOCAL", "auto/huge"])
def test_unknown_names(name: str) -> None:
    """Anything else is 404 `model_not_found`."""
    with pytest.raises(ModelNotFound, match="does not exist"):
        resolve(name, tiers(), None)


def test_a_name_that_two_tiers_offer_must_be_told_apart() -> None:
    """An ambiguous model names the choices; for a key that may use one of the tiers it is not ambiguous."""
    views = [TierView(name, "public", (ModelView(OfferedModel("demo", 2048)),)) for name in ("local", "hpc")]
    with pytest.raises(ModelNotFound, match="'local/demo' or 'hpc/demo'"):
        resolve("demo", views, None)
    assert resolve("demo", views, frozenset({"hpc"})) == Pin("hpc", "demo")


@pytest.mark.parametrize(
    ("key", "header", "result"),
    [
        (None, None, "public"),
        (None, "restricted", "restricted"),
        ("internal", None, "internal"),
        ("internal", "public", "internal"),
        ("internal", "restricted", "restricted"),
        ("restricted", "public", "restricted"),
    ],
)
def test_a_header_only_raises_the_class(key: str | None, header: str | None, result: str) -> None:
    """The request's class is the higher one of key and header."""
    assert request_class(POLICY, key, header) == result


def test_unknown_classes_are_refused() -> None:
    """A header with an unknown class is a bad request; a key with one may do nothing."""
    with pytest.raises(InvalidRequest, match="x-stream-privacy: 'secret' is not one of public, internal, restricted"):
        request_class(POLICY, None, "secret")
    with pytest.raises(NotAllowed, match="'gone'"):
        request_class(POLICY, "gone", None)


@pytest.mark.parametrize("pin", PINS, ids=str)
@pytest.mark.parametrize(
    "models",
    [{"eye"}, {"hpc/eye", "small"}, {"local/huge"}, set()],
    ids=lambda models: ",".join(sorted(models)) or "none",
)
def test_a_key_uses_only_its_models(pin: Pin, models: set[str]) -> None:
    """No other model is a candidate, whatever is named or away; a model may be meant on one tier alone."""
    for away in SUBSETS:
        plan = route(Ask(pin, "public", models=frozenset(models)), tiers(away), POLICY, SCORES)
        allowed = {model for name in NAMES for model in MODELS[name] if {model, f"{name}/{model}"} & models}
        assert {candidate.model.id for candidate in plan.candidates} <= allowed
        if pin.model is not None and pin.model not in allowed:
            assert isinstance(refusal(plan), NotAllowed)
    assert chosen(route(Ask(Pin(), "public", models=frozenset({"hpc/eye"})), tiers(), POLICY, SCORES)) == ["hpc/eye"]
