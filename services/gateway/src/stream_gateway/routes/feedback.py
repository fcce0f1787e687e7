"""POST /v1/feedback: a thumb for an answer, from the key that asked."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from stream_core.errors import InvalidRequest, UpstreamUnavailable
from stream_gateway.auth import Keyring
from stream_gateway.feedback import RecentAnswers, append
from stream_gateway.routes.models import Error
from stream_gateway.settings import GatewaySettings


class UnknownAnswer(InvalidRequest):
    """No such answer, or another key's."""

    code = "answer_not_found"
    status_hint = 404


class Feedback(BaseModel):
    """A thumb."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: Annotated[str, Field(min_length=1, max_length=64)]
    """The answer's header x-request-id."""
    good: bool
    prompt: Annotated[str, Field(max_length=32_768)] | None = None
    """Kept with the thumb; without it the thumb can't calibrate the judge."""


class Kept(BaseModel):
    """What was written."""

    request_id: str
    tier: str
    good: bool


def feedback_routes(keyring: Keyring, recent: RecentAnswers, settings: GatewaySettings) -> APIRouter:
    """Build the route.

    Args:
        keyring: who may ask.
        recent: whose answers these were.
        settings: where thumbs are kept, and how many bytes of them.
    """
    router = APIRouter(
        prefix="/v1",
        tags=["feedback"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong"},
            401: {"model": Error, "description": "No valid API key"},
            404: {"model": Error, "description": "No such answer of this key on this gateway"},
            429: {"model": Error, "description": "The feedback file is full"},
            503: {"model": Error, "description": "No feedback is kept here, or not now"},
        },
    )

    @router.post("/feedback", summary="Say whether an answer was good", operation_id="give_feedback")
    async def give(request: Request, thumb: Feedback) -> Kept:
        principal = keyring.authenticate(request.headers.raw)
        if settings.feedback_file is None:
            raise UpstreamUnavailable("this gateway keeps no feedback: gateway.feedback_file is not set")
        answered = recent.find(thumb.request_id, principal.id)
        if answered is None:
            words = "no answer of that id to this key is remembered here"
            raise UnknownAnswer(words, param="request_id")
        line: dict[str, object] = {
            "request_id": thumb.request_id,
            "key": answered.key,
            "tier": answered.tier,
            "model": answered.model,
            "good": thumb.good,
            "at": round(time.time()),
        }
        if thumb.prompt is not None:
            line["prompt"] = thumb.prompt
        try:
            await asyncio.to_thread(append, settings.feedback_file, line, settings.feedback_max_bytes)
        except OSError as error:
            raise UpstreamUnavailable(f"the feedback can't be kept: {error.strerror}") from error
        return Kept(request_id=thumb.request_id, tier=answered.tier, good=thumb.good)

    return router
