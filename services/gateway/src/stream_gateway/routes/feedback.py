"""POST /v1/feedback: a thumb for an answer, from the key that asked. GET gives that key its thumbs back, as JSONL."""

import time
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from stream_core.errors import InvalidRequest
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.service import Batches
from stream_gateway.feedback import Thumb, demand_kept
from stream_gateway.routes.models import Error
from stream_gateway.routing import request_class

_JSONL: Final = "application/x-ndjson"


class UnknownAnswer(InvalidRequest):
    """No such answer, or another key's."""

    code = "answer_not_found"
    status_hint = 404


class Feedback(BaseModel):
    """A thumb."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """The answer's header x-request-id."""
    good: bool
    prompt: Annotated[str, Field(max_length=32_768)] | None = None
    """Kept with the thumb, sealed; without it the thumb can't calibrate the judge."""


class Kept(BaseModel):
    """What was written."""

    request_id: str
    tier: str
    good: bool


def feedback_routes(entrance: Entrance, batches: Batches) -> APIRouter:
    """Build the routes.

    Args:
        entrance: who may ask.
        batches: where thumbs are kept.
    """
    router = APIRouter(
        prefix="/v1",
        tags=["feedback"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong"},
            401: {"model": Error, "description": "No valid API key"},
            404: {"model": Error, "description": "No such answer of this key; or this deployment keeps no feedback"},
            503: {"model": Error, "description": "The broker, which keeps it, is away"},
        },
    )

    async def known(request: Request) -> Principal:
        # A dependency, so that nothing of a stranger's body is judged before it is known who sends it.
        return await entrance.authenticate(request.headers.raw)

    caller = Annotated[Principal, Depends(known)]

    @router.post(
        "/feedback",
        summary="Say whether an answer was good",
        operation_id="give_feedback",
        responses={
            403: {"model": Error, "description": "The prompt is too confidential to be kept: it can be left out"},
            429: {"model": Error, "description": "There is no room for more feedback"},
        },
    )
    async def give(
        principal: caller, thumb: Feedback, x_stream_privacy: Annotated[str | None, Header()] = None
    ) -> Kept:
        thumbs = batches.thumbs
        answered = await thumbs.find(thumb.request_id)
        if answered is None or answered.key != principal.id:
            raise UnknownAnswer("no answer of that id to this key is remembered", param="request_id")
        if thumb.prompt is not None:
            here = batches.registry.current
            policy = here.deployment.policy
            classes = (answered.privacy, request_class(policy, principal.privacy, x_stream_privacy))
            await demand_kept(batches.settings.feedback_privacy, policy, here.detector, thumb.prompt, classes)
        kept = Thumb(
            request_id=thumb.request_id,
            key=answered.key,
            tier=answered.tier,
            model=answered.model,
            good=thumb.good,
            at=round(time.time()),
            prompt=thumb.prompt,
        )
        await thumbs.keep(kept)
        return Kept(request_id=kept.request_id, tier=kept.tier, good=kept.good)

    @router.get(
        "/feedback",
        summary="This key's thumbs, one a line",
        operation_id="list_feedback",
        response_class=Response,
        responses={200: {"content": {_JSONL: {"schema": {"type": "string"}}}}},
    )
    async def tell(principal: caller) -> Response:
        lines = [msgspec.json.encode(thumb) async for thumb in batches.thumbs.read(principal.id)]
        return Response(b"".join(line + b"\n" for line in lines), media_type=_JSONL)

    return router
