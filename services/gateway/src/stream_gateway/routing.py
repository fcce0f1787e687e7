"""Which tier answers: the whole policy, in one file. Pure: what is known comes in, an ordered plan comes out.

Rules, in this order; a later one never brings back what an earlier one took away:

1. Entitlement and privacy: a tier, cluster or model that the key may not use, or a tier or model that may not see text
   of the request's class, is out.
2. Pin: a caller who names a tier, a cluster or a model gets that or an error, never another one.
3. Fitness: a model that lacks a modality or a capability that the request demands, that serves another kind of
   request (embeddings against chat), or whose window can't hold the answer asked for, is out.
4. Score: tiers whose probability of a good answer reaches the threshold come first, the cheapest of them at the
   front; then the others, the most probable first.
5. Health: a model that is known to be away is out, unless the caller named it or its tier: then it is tried.
6. Cold start: a model without a ready worker, of which one can come, is waited for where its pool says so, or where
   the caller named it or its tier. Else it comes after all others, and is woken if it would have been asked first.

The same first rule (`barred`, `unseen`) is asked again before every attempt, so that fallback can't widen who sees a
prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from stream_core.deployment import PolicyConfig
from stream_core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LimitExceeded,
    ModelNotFound,
    NotAllowed,
    StreamError,
    Unsupported,
    UpstreamUnavailable,
)
from stream_core.openai.demands import Demand
from stream_core.privacy import may_see, strictest
from stream_gateway.backends.contract import OfferedModel
from stream_gateway.standing import Standing, overall

AUTO = "auto"
"""The routed model's name."""
CHAT_TASK = "chat"
"""Chat and completions, which every model does that declares no other task."""
OTHER_TASKS = frozenset({"embeddings", "moderations"})
"""Capabilities of models that do no chat, unless "chat" is one of them, too."""
_ALL_OPEN: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as a tier offers it at this moment."""

    model: OfferedModel
    fault: str | None = None
    """Why it can't be asked now, in words."""
    clusters: tuple[tuple[str, Standing], ...] = ()
    """How it stands on each cluster that offers it; without clusters `fault` says it all."""

    @property
    def standing(self) -> Standing:
        """How it stands as a whole."""
        if self.clusters:
            return overall(dict(self.clusters))
        return Standing("hot") if self.fault is None else Standing("offline", self.fault)

    def within(self, clusters: frozenset[str] | None) -> "ModelView | None":
        """See it as one who may use only these clusters; None when it is on none of them."""
        if clusters is None or not self.clusters:
            return self
        left = tuple((name, standing) for name, standing in self.clusters if name in clusters)
        return replace(self, clusters=left) if left else None


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier at this moment. Tiers are listed cheapest first."""

    name: str
    privacy: str
    """The most confidential class of text that it may see."""
    models: tuple[ModelView, ...]
    """The first is its default."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What the caller named; all None for `auto`."""

    tier: str | None = None
    model: str | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as far as the policy looks at it."""

    pin: Pin
    privacy: str
    """The request's class."""
    tiers: frozenset[str] | None = None
    """What the key may use; None: every tier."""
    modalities: frozenset[str] = frozenset({"text"})
    max_output: int | None = None
    """Tokens of answer the caller allows."""
    clusters: frozenset[str] | None = None
    """What the key may use; None: every cluster."""
    models: frozenset[str] | None = None
    """What the key may use, as "model" or "tier/model"; None: every model."""
    demands: tuple[Demand, ...] = ()
    """Capabilities that it needs, beyond text."""
    task: str = CHAT_TASK
    """What kind of request it is."""
    raised: str = ""
    """What was found in its text that made its class a higher one; empty: nothing."""

    @property
    def allowed_clusters(self) -> frozenset[str] | None:
        """The only clusters that may answer; None: any."""
        if self.pin.cluster is None:
            return self.clusters
        pinned = frozenset({self.pin.cluster})
        return pinned if self.clusters is None else pinned & self.clusters


class Why(Enum):
    """Kinds of reasons to leave something out."""

    ENTITLEMENT = "entitlement"
    PRIVACY = "privacy"
    PIN = "pin"
    MODALITY = "modality"
    CAPABILITY = "capability"
    TASK = "task"
    CONTEXT = "context"
    HEALTH = "health"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A tier, or one model of it, that is no candidate."""

    tier: str
    model: str | None
    why: Why
    words: str
    param: str | None = None
    """The request's field that is the reason."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may answer."""

    tier: str
    model: OfferedModel
    reason: str
    waits: bool = False
    """Whether the request may wait for a worker of it."""


@dataclass(frozen=True, slots=True)
class Waking:
    """A model that would have been asked first, had a worker been ready: one should be, for the next request."""

    tier: str
    model: str
    state: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The candidates in the order of trying, everything else with its reason, and what is to be woken."""

    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...]
    waking: tuple[Waking, ...] = ()


def request_class(policy: PolicyConfig, of_key: str | None, of_header: str | None) -> str:
    """Tell a request's privacy class: the key's, or the default; a header can only raise it.

    Raises:
        InvalidRequest: the header names no class.
        NotAllowed: the key carries a class that the policy does not know.
    """
    classes = policy.classes
    base = of_key or policy.default_class
    if base not in classes:
        raise NotAllowed(f"this key's privacy class {base!r} is not among the policy's: {', '.join(classes)}")
    if of_header is None:
        return base
    if of_header not in classes:
        raise InvalidRequest(f"x-stream-privacy: {of_header[:80]!r} is not one of {', '.join(classes)}")
    return strictest(classes, base, of_header)


def resolve(
    name: str,
    tiers: Sequence[TierView],
    entitled: frozenset[str] | None,
    clusters: frozenset[str] | None = None,
) -> Pin:
    """Read a request's "model": `auto`, a tier, `<tier>/<cluster>/<model>`, `<tier>/<model>`, or a model's own name.

    Models' names may have slashes. What follows the tier is a cluster and its model where there is such a cluster
    that offers such a model, else a model. A bare name is one that exactly one usable tier offers.

    Args:
        name: as the client sent it.
        tiers: all of the deployment.
        entitled: the tiers that the key may use; None: all.
        clusters: likewise.

    Raises:
        ModelNotFound: nothing of that name, or more than one.
    """
    if name == AUTO:
        return Pin()
    by_name = {tier.name: tier for tier in tiers}
    if name in by_name:
        return Pin(name)
    prefix, _, rest = name.partition("/")
    if prefix in by_name:
        cluster, _, model = rest.partition("/")
        views = by_name[prefix].models
        if any(view.model.id == model and cluster in dict(view.clusters) for view in views):
            return Pin(prefix, model, cluster)
        if any(view.model.id == rest for view in views):
            return Pin(prefix, rest)
    offering = [
        tier.name
        for tier in tiers
        if (entitled is None or tier.name in entitled)
        and any(view.model.id == name and view.within(clusters) for view in tier.models)
    ]
    if len(offering) == 1:
        return Pin(offering[0], name)
    if offering:
        choices = " or ".join(f"'{tier}/{name}'" for tier in offering)
        raise ModelNotFound(f"the model {name!r} is offered by several tiers: ask for {choices}", param="model")
    raise ModelNotFound(
        f"the model {name[:200]!r} does not exist, or this key may not use it; GET /v1/models lists what there is",
        param="model",
    )


def barred(ask: Ask, tier: str, privacy: str, policy: PolicyConfig) -> Exclusion | None:
    """Rule 1, for one tier of a privacy class: None when it may see the request."""
    if ask.tiers is not None and tier not in ask.tiers:
        return Exclusion(tier, None, Why.ENTITLEMENT, f"this key may not use the tier '{tier}'")
    if ask.pin.tier == tier and ask.pin.cluster is not None and not ask.allowed_clusters:
        words = f"this key may not use the cluster '{ask.pin.cluster}'"
        return Exclusion(tier, None, Why.ENTITLEMENT, words)
    if not may_see(policy.classes, privacy, ask.privacy):
        return Exclusion(tier, None, Why.PRIVACY, f"the tier '{tier}' {_beyond(ask, privacy)}")
    return None


def unseen(ask: Ask, tier: str, model: OfferedModel, policy: PolicyConfig) -> Exclusion | None:
    """Rule 1, for one model of a tier that may see the request: None when the model may, too."""
    if ask.models is not None and ask.models.isdisjoint((model.id, f"{tier}/{model.id}")):
        return Exclusion(tier, model.id, Why.ENTITLEMENT, f"this key may not use the model '{tier}/{model.id}'")
    low = next((name for name in sorted(model.privacy) if not may_see(policy.classes, name, ask.privacy)), None)
    if low is None:
        return None
    return Exclusion(tier, model.id, Why.PRIVACY, f"'{tier}/{model.id}' {_beyond(ask, low)}")


def _beyond(ask: Ask, privacy: str) -> str:
    why = f", raised by what it holds: {ask.raised}" if ask.raised else ""
    return f"may see text up to '{privacy}', and the request is '{ask.privacy}'{why}"


def permitted(ask: Ask, tiers: Sequence[TierView], policy: PolicyConfig) -> list[TierView]:
    """Rule 1, for all tiers: those that may see the request, cheapest first, with what the key may use of them."""
    return [
        replace(tier, models=tuple(found for view in seeing if (found := view.within(ask.allowed_clusters))))
        for tier in tiers
        if barred(ask, tier.name, tier.privacy, policy) is None
        if (seeing := [view for view in tier.models if unseen(ask, tier.name, view.model, policy) is None])
        or not tier.models
    ]


def route(
    ask: Ask,
    tiers: Sequence[TierView],
    policy: PolicyConfig,
    scores: Mapping[str, float],
    closed: Mapping[str, str] = _ALL_OPEN,
) -> Plan:
    """Make the plan.

    Args:
        ask: the request.
        tiers: all of the deployment, cheapest first.
        policy: classes and threshold.
        scores: probability of a good answer by tier; a tier without one counts as hopeless. Not asked for a pin.
        closed: tiers that only who names them gets to, with the reason.
    """
    excluded: list[Exclusion] = []
    ranked: list[tuple[tuple[int, float, int], Candidate]] = []
    asleep: list[tuple[tuple[int, float, int], Candidate, Standing]] = []
    for cost, tier in enumerate(tiers):
        if out := barred(ask, tier.name, tier.privacy, policy):
            excluded.append(out)
        elif ask.pin.tier not in {None, tier.name}:
            excluded.append(Exclusion(tier.name, None, Why.PIN, f"the caller named '{ask.pin.tier}'"))
        elif ask.pin.tier is None and tier.name in closed:
            excluded.append(Exclusion(tier.name, None, Why.BUDGET, closed[tier.name]))
        else:
            chosen, sleeping, faults = _choose(ask, tier, policy)
            excluded += faults
            score = scores.get(tier.name, 0.0)
            good = score >= policy.good_enough
            reason = "named by the caller" if ask.pin.tier else _scored(score, policy.good_enough)
            rank = (0, 0.0, cost) if good else (1, -score, cost)
            if chosen is not None:
                waits = ask.pin.tier is not None or chosen.standing.cold_start == "wait"
                ranked.append((rank, Candidate(tier.name, chosen.model, reason, waits)))
            asleep += [(rank, Candidate(tier.name, view.model, reason, waits=True), view.standing) for view in sleeping]
    ranked.sort(key=lambda item: item[0])
    asleep.sort(key=lambda item: item[0])
    last = [candidate for _, candidate, standing in asleep if standing.comes]
    candidates = [*(candidate for _, candidate in ranked), *last]
    if candidates:
        candidates[-1] = replace(candidates[-1], waits=True)  # nobody else is left to ask
    waking = [
        Waking(candidate.tier, candidate.model.id, standing.state)
        for rank, candidate, standing in asleep
        if ranked and rank <= ranked[0][0]
    ]
    return Plan(tuple(candidates), tuple(excluded), tuple(waking))


def refusal(plan: Plan) -> StreamError:
    """Say why nobody can answer: the reason that the caller, or time, can mend most easily decides."""
    reasons = [out for out in plan.excluded if out.why is not Why.PIN]
    order = (Why.HEALTH, Why.BUDGET, Why.CONTEXT, Why.CAPABILITY, Why.MODALITY, Why.TASK, Why.PRIVACY, Why.ENTITLEMENT)
    for why in order:
        words = "; ".join(dict.fromkeys(out.words for out in reasons if out.why is why))
        if not words:
            continue
        match why:
            case Why.HEALTH:
                return UpstreamUnavailable(f"no model can answer now: {words}")
            case Why.BUDGET:
                return LimitExceeded(words)
            case Why.CONTEXT:
                return ContextLengthExceeded(words, param="messages")
            case Why.CAPABILITY:
                return Unsupported(words, param=next(out.param for out in reasons if out.why is why))
            case Why.MODALITY:
                return InvalidRequest(words, param="messages")
            case Why.TASK:
                return ModelNotFound(words, param="model")
            case _:
                return NotAllowed(words)
    return UpstreamUnavailable("no tier is configured")


def _choose(
    ask: Ask, tier: TierView, policy: PolicyConfig
) -> tuple[ModelView | None, list[ModelView], list[Exclusion]]:
    """Rules 1 to 6 within a tier: (its model for this request, models to be woken, the models left out)."""
    named = [view for view in tier.models if ask.pin.model in {None, view.model.id}]
    if not named:
        words = f"the tier '{tier.name}' offers no model now"
        return None, [], [Exclusion(tier.name, ask.pin.model, Why.HEALTH, words)]
    sleeping: list[ModelView] = []
    excluded: list[Exclusion] = []
    for whole in named:
        view = whole.within(ask.allowed_clusters)
        name = f"'{tier.name}/{whole.model.id}'"
        if view is None:
            offering = " and ".join(f"'{cluster}'" for cluster, _ in whole.clusters)
            words = f"{name} is on {offering}, and this key may not use it there"
            excluded.append(Exclusion(tier.name, whole.model.id, Why.ENTITLEMENT, words))
        elif out := unseen(ask, tier.name, view.model, policy) or _unfit(ask, tier.name, view.model):
            excluded.append(out)
        elif ask.pin.tier is not None or view.standing.awaited:
            return view, sleeping, excluded
        else:
            if view.clusters:
                sleeping.append(view)
            if not view.standing.comes:
                words = f"{name}: {view.standing.reason}"
                excluded.append(Exclusion(tier.name, view.model.id, Why.HEALTH, words))
    return None, sleeping, excluded


def _unfit(ask: Ask, tier: str, model: OfferedModel) -> Exclusion | None:
    """Rule 3, for one model: None when it can do what is asked."""
    name = f"'{tier}/{model.id}'"
    if not serves(model, ask.task):
        return Exclusion(tier, model.id, Why.TASK, f"{name} does no {ask.task}", "model")
    if missing := sorted(ask.modalities - model.modalities):
        return Exclusion(tier, model.id, Why.MODALITY, f"{name} does not accept {' and '.join(missing)}", "messages")
    if demand := next((demand for demand in ask.demands if demand.capability not in model.capabilities), None):
        words = f"{demand.param}: {name} lacks the capability '{demand.capability}'"
        return Exclusion(tier, model.id, Why.CAPABILITY, words, demand.param)
    if (ask.max_output or 0) >= model.context_window:
        words = (
            f"an answer of {ask.max_output:,} tokens is asked for, and the context window of {name} "
            f"has {model.context_window:,} tokens for prompt and answer together"
        )
        return Exclusion(tier, model.id, Why.CONTEXT, words, "messages")
    return None


def serves(model: OfferedModel, task: str) -> bool:
    """Whether a model answers requests of this kind."""
    if task != CHAT_TASK:
        return task in model.capabilities
    return CHAT_TASK in model.capabilities or not model.capabilities & OTHER_TASKS


def _scored(score: float, threshold: float) -> str:
    return f"auto: score {score:.2f} {'reaches' if score >= threshold else 'is below'} {threshold:.2f}"
