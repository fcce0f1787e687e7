"""POST /v1/messages/count_tokens, of Anthropic's API; the messages themselves are an endpoint that asks a model."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel

from stream_core.ids import new_id
from stream_gateway.dialects.messages import with_bearer
from stream_gateway.dialects.messages_request import parse_messages
from stream_gateway.pipeline import Asked
from stream_gateway.routes.asking import Means, demand_json, demand_plain
from stream_gateway.stream import read_body

BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/MessagesBody"}}},
    }
}


class TokenCount(BaseModel):
    """How many tokens a request has: exact where the model's tokenizer is known, else an estimate."""

    input_tokens: int


class MessagesErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str
    code: str | None = None
    param: str | None = None


class MessagesError(BaseModel):
    """Anthropic's error body."""

    type: str = "error"
    error: MessagesErrorDetail
    request_id: str


def message_routes(means: Means) -> APIRouter:
    """Build the route.

    Args:
        means: of the endpoints that ask a model.
    """
    router = APIRouter(
        prefix="/v1/messages",
        tags=["messages"],
        dependencies=[
            Depends(HTTPBearer(auto_error=False)),
            Depends(APIKeyHeader(name="x-api-key", auto_error=False)),
        ],
        responses={
            code: {"model": MessagesError, "description": text}
            for code, text in {
                400: "A field is wrong",
                401: "No valid API key",
                403: "The key, or the request's privacy class, does not allow it",
                404: "No such model",
                413: "The body is too large",
                415: "The body is not JSON",
                503: "No model can answer now",
            }.items()
        },
    )

    @router.post(
        "/count_tokens",
        summary="Count the tokens of a request; nothing is sent to a model",
        operation_id="count_tokens",
        openapi_extra=BODY,
    )
    async def count_tokens(request: Request, x_stream_privacy: Annotated[str | None, Header()] = None) -> TokenCount:
        principal = await means.entrance.authenticate(with_bearer(request.headers.raw))
        demand_plain(request.headers.get("content-encoding", "").encode("latin-1"))
        demand_json(request.headers.get("content-type", "application/json").encode("latin-1"))
        length = request.headers.get("content-length", "")
        declared = int(length) if length.isdecimal() else None
        body = await read_body(request.receive, declared, means.max_body_bytes)
        chat = parse_messages(body, counting=True).chat
        asked = Asked(new_id(), principal, chat, len(body), x_stream_privacy, {}, tell=None)
        async with means.registry.hold() as generation:
            return TokenCount(input_tokens=await means.pipeline.count(asked, generation))

    return router
