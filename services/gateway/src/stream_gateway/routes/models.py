"""GET /v1/models: what this key may use, as OpenAI lists models, with what STREAM knows of them besides."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stream_core.errors import ModelNotFound
from stream_gateway.auth import Keyring, Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.routing import AUTO, Ask, ModelView, Pin, TierView, permitted, request_class


class ModelState(BaseModel):
    """What STREAM knows of a model."""

    tier: str | None
    """None for `auto`, which is routed."""
    model: str | None
    """The concrete model; None for `auto`."""
    state: Literal["ready", "unavailable"]
    reason: str | None = None
    """Why it is unavailable."""
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


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class Error(BaseModel):
    """OpenAI's error body."""

    error: ErrorDetail


def model_routes(keyring: Keyring, registry: Registry, started: int) -> APIRouter:
    """Build the routes.

    Args:
        keyring: who may ask.
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
        return keyring.authenticate(request.headers.raw)

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
        for offer in _offers(registry, principal, started):
            if offer.id == model:
                return offer
        raise ModelNotFound(f"the model {model[:200]!r} does not exist, or this key may not use it", param="model")

    return router


def _offers(registry: Registry, principal: Principal, created: int) -> list[Model]:
    generation = registry.current
    policy = generation.deployment.policy
    ask = Ask(Pin(), request_class(policy, principal.privacy, None), principal.tiers)
    tiers = [tier for tier in permitted(ask, generation.view(), policy) if tier.models]
    entries = [_auto(tiers, created)]
    entries += [_entry(tier.name, tier, tier.models[0], created) for tier in tiers]
    entries += [_entry(f"{tier.name}/{view.model.id}", tier, view, created) for tier in tiers for view in tier.models]
    return entries


def _entry(name: str, tier: TierView, view: ModelView, created: int) -> Model:
    state = ModelState(
        tier=tier.name,
        model=view.model.id,
        state="ready" if view.fault is None else "unavailable",
        reason=view.fault,
        demo=view.model.demo,
        context_window=view.model.context_window,
        modalities=sorted(view.model.modalities),
    )
    return Model(id=name, created=created, owned_by=tier.name, stream=state)


def _auto(tiers: list[TierView], created: int) -> Model:
    views = [view for tier in tiers for view in tier.models]
    ready = [view for view in views if view.fault is None]
    state = ModelState(
        tier=None,
        model=None,
        state="ready" if ready else "unavailable",
        reason=None if ready else "no model is ready",
        demo=bool(views) and all(view.model.demo for view in views),
        context_window=max((view.model.context_window for view in views), default=None),
        modalities=sorted({modality for view in views for modality in view.model.modalities}) or ["text"],
    )
    return Model(id=AUTO, created=created, owned_by="stream", stream=state)
