"""/v1/responses/{id}: what is kept of the Responses API; POST /v1/responses itself is an endpoint that asks a model."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stream_core.errors import InvalidRequest, Unsupported
from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.service import Batches
from stream_gateway.dialects.responses_request import check_include
from stream_gateway.routes.asking import NotOffered
from stream_gateway.routes.callers import Callers
from stream_gateway.routes.models import Error

_LONGEST_PAGE = 100
_PAGE = 20
_Include = Annotated[list[str] | None, Query(alias="include[]")]


class ItemList(BaseModel):
    """Items of a response's input."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ResponseDeleted(BaseModel):
    """A response that is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class NotInBackground(InvalidRequest):
    """Only responses in the background can be cancelled, and there are none: a client that leaves cancels its own."""

    code = "not_in_background"


def response_routes(callers: Callers, batches: Batches) -> APIRouter:
    """Build the routes.

    Args:
        callers: who may ask.
        batches: with the store.
    """
    router = APIRouter(
        prefix="/v1/responses",
        tags=["responses"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong"},
            401: {"model": Error, "description": "No valid API key"},
            404: {"model": Error, "description": "No such response of this key, or none are kept in this deployment"},
            503: {"model": Error, "description": "The store can't be reached now"},
        },
    )
    caller = Annotated[Principal, Depends(callers)]

    @router.get("/{response_id}", summary="A stored response", operation_id="retrieve_response")
    async def retrieve(
        response_id: str,
        principal: caller,
        include: _Include = None,
        *,
        stream: bool = False,
        starting_after: int | None = None,
        include_obfuscation: bool = False,
    ) -> dict[str, Any]:
        check_include(include or ())
        wanted = {
            "stream": stream,
            "starting_after": starting_after is not None,
            "include_obfuscation": include_obfuscation,
        }
        for name in (name for name, given in wanted.items() if given):
            raise Unsupported(f"{name}: only responses in the background can be streamed again", param=name)
        return (await batches.archive.find(principal.id, response_id)).response

    @router.delete("/{response_id}", summary="Delete it", operation_id="delete_response")
    async def delete(response_id: str, principal: caller) -> ResponseDeleted:
        await batches.archive.delete(principal.id, response_id)
        return ResponseDeleted(id=response_id)

    @router.get("/{response_id}/input_items", summary="What was asked", operation_id="list_input_items")
    async def input_items(
        response_id: str,
        principal: caller,
        limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = _PAGE,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
        after: str | None = None,
        include: _Include = None,
    ) -> ItemList:
        check_include(include or ())
        items = (await batches.archive.find(principal.id, response_id)).input
        listed = items[::-1] if order == "desc" else items
        start = 0
        if after is not None:
            start = next((place for place, item in enumerate(listed, 1) if item["id"] == after), 0)
            if not start:
                raise InvalidRequest(f"after: {after[:60]!r} is not in the list", param="after")
        shown = listed[start : start + limit]
        return ItemList(
            data=shown,
            first_id=shown[0]["id"] if shown else None,
            last_id=shown[-1]["id"] if shown else None,
            has_more=start + limit < len(listed),
        )

    @router.post("/compact", include_in_schema=False)
    @router.post("/input_tokens", include_in_schema=False)
    async def elsewhere(request: Request) -> None:
        raise NotOffered(f"there is no {request.url.path} here")

    @router.post(
        "/{response_id}/cancel", summary="Not possible: none runs in the background", operation_id="cancel_response"
    )
    async def cancel(response_id: str, principal: caller) -> dict[str, Any]:
        await batches.archive.find(principal.id, response_id)
        raise NotInBackground("only a response in the background can be cancelled", param="response_id")

    return router
