"""GET /v1/models and /v1/tiers: what this key may use, as OpenAI lists models, with what STREAM knows besides."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stream_core.errors import ModelNotFound
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Generation, Registry
from stream_gateway.routing import AUTO, Ask, ModelView, Pin, TierView, permitted, request_class
from stream_gateway.standing import Standing, State, overall


class ClusterState(BaseModel):
    """How a model stands on one cluster."""

    name: str
    state: State
    reason: str | None = None
    """Why, in words."""
    ready: int
    """Workers that take requests."""
    starting: int
    """Workers on their way, those in a queue included."""
    queue_position: int | None = None
    """Of the first worker's job in the batch system's queue, from 1."""
    ready_in_s: float | None = None
    """Estimate of when a worker will be ready."""
    first_token_ms: float | None = None
    """From a request to its first token, as measured lately."""


class ModelState(BaseModel):
    """What STREAM knows of a model."""

    tier: str | None
    """None for `auto`, which is routed."""
    model: str | None
    """The concrete model; None for `auto`."""
    state: State
    """Answers now; a worker is on its way; a request starts one; nobody can answer."""
    reason: str | None = None
    """Why it is not hot."""
    queue_position: int | None = None
    """Of the first worker's job in a batch system's queue, from 1."""
    ready_in_s: float | None = None
    """Estimate of when a worker will be ready."""
    clusters: list[ClusterState] = []
    """Those that offer it, on a tier of clusters."""
    demo: bool = False
    """A toy: its answers are not to be believed."""
    context_window: int | None = None
    """Tokens, prompt and answer together."""
    modalities: list[str] = ["text"]


class Model(BaseModel):
    """One entry."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    stream: ModelState


class ModelList(BaseModel):
    """All that a key may use."""

    object: Literal["list"] = "list"
    data: list[Model]


class Tier(BaseModel):
    """One tier."""

    id: str
    object: Literal["tier"] = "tier"
    kind: Literal["http", "hpc"]
    privacy: str
    """The most confidential class of text that it may see."""
    state: State
    """Of its default model."""
    reason: str | None = None
    """Why it is not hot."""
    models: list[ModelState]
    """The first is its default."""


class TierList(BaseModel):
    """All tiers that a key may use, the cheapest first."""

    object: Literal["list"] = "list"
    data: list[Tier]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class Error(BaseModel):
    """OpenAI's error body."""

    error: ErrorDetail


def model_routes(entrance: Entrance, registry: Registry, started: int) -> APIRouter:
    """Build the routes.

    Args:
        entrance: who may ask.
        registry: what there is.
        started: unix seconds since when this gateway offers them.
    """
    router = APIRouter(
        prefix="/v1",
        tags=["models"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={401: {"model": Error, "description": "No valid API key"}},
    )

    async def caller(request: Request) -> Principal:
        return await entrance.authenticate(request.headers.raw)

    @router.get("/models", summary="List the models this key may use", operation_id="list_models")
    async def list_models(principal: Annotated[Principal, Depends(caller)]) -> ModelList:
        return ModelList(data=_offers(registry, principal, started))

    @router.get(
        "/models/{model:path}",
        summary="One of them",
        operation_id="get_model",
        responses={404: {"model": Error, "description": "No such model"}},
    )
    async def get_model(model: str, principal: Annotated[Principal, Depends(caller)]) -> Model:
        offers = _offers(registry, principal, started)
        for offer in offers:
            if offer.id == model:
                return offer
        # A bare name is one that exactly one tier offers, as in a request; the list has it with its tier.
        bare = [offer for offer in offers if offer.id == f"{offer.owned_by}/{model}"]
        if len(bare) == 1:
            return bare[0].model_copy(update={"id": model})
        raise ModelNotFound(f"the model {model[:200]!r} does not exist, or this key may not use it", param="model")

    @router.get("/tiers", summary="List the tiers this key may use, the cheapest first", operation_id="list_tiers")
    async def list_tiers(principal: Annotated[Principal, Depends(caller)]) -> TierList:
        return TierList(data=_tiers(registry, principal))

    return router


def _offers(registry: Registry, principal: Principal, created: int) -> list[Model]:
    generation = registry.current
    tiers = _seen(generation, principal)
    entries = [_auto(tiers, created)]
    entries += [_entry(tier.name, tier, tier.models[0], created) for tier in tiers]
    for tier in tiers:
        entries += [_entry(f"{tier.name}/{view.model.id}", tier, view, created) for view in tier.models]
        if len(generation.entries[tier.name].clusters) > 1:
            entries += [
                _entry(f"{tier.name}/{name}/{view.model.id}", tier, one, created)
                for view in tier.models
                for name, _ in view.clusters
                if (one := view.within(frozenset({name}))) is not None
            ]
    # A name is read as a cluster's model before it is read as a model of that name.
    return list({entry.id: entry for entry in entries}.values())


def _tiers(registry: Registry, principal: Principal) -> list[Tier]:
    generation = registry.current
    return [
        Tier(
            id=tier.name,
            kind=generation.entries[tier.name].tier.kind,
            privacy=tier.privacy,
            state=tier.models[0].standing.state,
            reason=_reason(tier.models[0].standing),
            models=[_state(tier, view) for view in tier.models],
        )
        for tier in _seen(generation, principal)
    ]


def _seen(generation: Generation, principal: Principal) -> list[TierView]:
    """Show a key what it may use."""
    policy = generation.deployment.policy
    ask = Ask(
        pin=Pin(),
        privacy=request_class(policy, principal.privacy, None),
        tiers=principal.tiers,
        clusters=principal.clusters,
        models=principal.models,
    )
    return [tier for tier in permitted(ask, generation.view(), policy) if tier.models]


def _entry(name: str, tier: TierView, view: ModelView, created: int) -> Model:
    return Model(id=name, created=created, owned_by=tier.name, stream=_state(tier, view))


def _state(tier: TierView, view: ModelView) -> ModelState:
    standing = view.standing
    return ModelState(
        tier=tier.name,
        model=view.model.id,
        state=standing.state,
        reason=_reason(standing),
        queue_position=standing.queue_position,
        ready_in_s=_tenths(standing.ready_in_s),
        clusters=[
            ClusterState(
                name=name,
                state=one.state,
                reason=one.reason or None,
                ready=one.ready,
                starting=one.starting,
                queue_position=one.queue_position,
                ready_in_s=_tenths(one.ready_in_s),
                first_token_ms=_tenths(one.first_token_ms),
            )
            for name, one in view.clusters
        ],
        demo=view.model.demo,
        context_window=view.model.context_window,
        modalities=sorted(view.model.modalities),
    )


def _auto(tiers: list[TierView], created: int) -> Model:
    views = [view for tier in tiers for view in tier.models]
    whole = overall({f"{tier.name}/{view.model.id}": view.standing for tier in tiers for view in tier.models})
    state = ModelState(
        tier=None,
        model=None,
        state=whole.state,
        reason=None if whole.hot else "no model is ready",
        queue_position=whole.queue_position,
        ready_in_s=_tenths(whole.ready_in_s),
        demo=bool(views) and all(view.model.demo for view in views),
        context_window=max((view.model.context_window for view in views), default=None),
        modalities=sorted({modality for view in views for modality in view.model.modalities}) or ["text"],
    )
    return Model(id=AUTO, created=created, owned_by="stream", stream=state)


def _reason(standing: Standing) -> str | None:
    return None if standing.hot else standing.reason or None


def _tenths(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
