"""POST /v1/route: what would happen to a chat request, and why. Nothing is sent to a model."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stream_core.ids import new_id
from stream_core.openai.models import parse_chat
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.backends.registry import Registry
from stream_gateway.fitting import wants_whole
from stream_gateway.pipeline import Asked, Pipeline, Trail
from stream_gateway.routes.asking import demand_plain
from stream_gateway.routes.models import Error
from stream_gateway.stream import read_body


class RouteCandidate(BaseModel):
    """A model that would be tried."""

    tier: str
    model: str
    reason: str


class RouteExclusion(BaseModel):
    """A tier, or one model of it, that would not be."""

    tier: str
    model: str | None = None
    why: str


class Explanation(BaseModel):
    """What would happen."""

    tier: str | None
    """Who would answer; None when nobody can."""
    model: str | None
    level: Literal["LOW", "MEDIUM", "HIGH"] | None
    """None when the judge is away."""
    confidence: float
    scores: dict[str, float]
    """Probability of a good answer by tier that may see the request."""
    expected_output_tokens: int
    reasons: list[str]
    candidates: list[RouteCandidate]
    """In the order of trying."""
    excluded: list[RouteExclusion]
    limited: str | None
    """The limit that the request would meet now; None: none."""


def explain_routes(entrance: Entrance, registry: Registry, pipeline: Pipeline, max_body_bytes: int) -> APIRouter:
    """Build the route.

    Args:
        entrance: who may ask.
        registry: what there is.
        pipeline: the one that chat requests go through.
        max_body_bytes: as for chat requests.
    """
    router = APIRouter(
        prefix="/v1",
        tags=["routing"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong"},
            401: {"model": Error, "description": "No valid API key"},
            403: {"model": Error, "description": "The key's or the request's class is not known"},
            404: {"model": Error, "description": "No such model"},
            413: {"model": Error, "description": "The body is too large"},
            415: {"model": Error, "description": "The body is compressed"},
        },
    )

    @router.post(
        "/route",
        summary="Explain where a chat request would go",
        operation_id="explain_route",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
            }
        },
    )
    async def explain(
        request: Request,
        x_stream_privacy: Annotated[str | None, Header()] = None,
        x_stream_context: Annotated[str | None, Header()] = None,
    ) -> Explanation:
        principal = await entrance.authenticate(request.headers.raw)
        demand_plain(request.headers.get("content-encoding", "").encode("latin-1"))
        length = request.headers.get("content-length", "")
        body = await read_body(request.receive, int(length) if length.isdecimal() else None, max_body_bytes)
        whole = wants_whole(x_stream_context)
        asked = Asked(new_id(), principal, parse_chat(body), len(body), x_stream_privacy, {}, tell=None, whole=whole)
        async with registry.hold() as generation:
            trail = Trail()
            plan, verdict = await pipeline.explain(asked, generation, trail)
            limited = await pipeline.limited(asked, generation, plan)
        first = plan.candidates[0] if plan.candidates else None
        reasons = [first.reason] if first else []
        return Explanation(
            tier=first.tier if first else None,
            model=first.model.id if first else None,
            level=verdict.level or None,
            confidence=verdict.confidence,
            scores=dict(verdict.scores),
            expected_output_tokens=verdict.expected_output_tokens,
            reasons=[*reasons, *trail.notes, *([verdict.note] if verdict.note else []), *verdict.reasons],
            candidates=[RouteCandidate(tier=c.tier, model=c.model.id, reason=c.reason) for c in plan.candidates],
            excluded=[RouteExclusion(tier=out.tier, model=out.model, why=out.words) for out in plan.excluded],
            limited=limited or None,
        )

    return router
