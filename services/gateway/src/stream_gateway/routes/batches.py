"""/v1/batches."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.security import HTTPBearer

from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.records import Wish
from stream_gateway.batches.service import Batches
from stream_gateway.routes.callers import Callers, Limit, page
from stream_gateway.routes.models import Error
from stream_gateway.routes.shapes import Batch, BatchList, CreateBatch, batch_object


def batch_routes(callers: Callers, batches: Batches) -> APIRouter:
    """Build the routes.

    Args:
        callers: who may ask.
        batches: where they are.
    """
    router = APIRouter(
        prefix="/v1/batches",
        tags=["batches"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong, or the batch has ended"},
            401: {"model": Error, "description": "No valid API key"},
            404: {"model": Error, "description": "No such batch of this key, or no batches in this deployment"},
            429: {"model": Error, "description": "Too many open batches"},
            503: {"model": Error, "description": "The store can't be reached now"},
        },
    )
    caller = Annotated[Principal, Depends(callers)]

    @router.post("", summary="Run the requests of a file", operation_id="create_batch")
    async def create_batch(
        wish: CreateBatch, principal: caller, x_stream_privacy: Annotated[str | None, Header()] = None
    ) -> Batch:
        privacy = callers.privacy(principal, x_stream_privacy)
        record = await batches.desk.create(
            principal.id,
            privacy,
            Wish(wish.input_file_id, wish.endpoint, wish.completion_window, wish.metadata or {}),
            callers.strictest,
            principal.project,
        )
        return batch_object(record)

    @router.get("", summary="List batches", operation_id="list_batches")
    async def list_batches(principal: caller, after: str | None = None, limit: Limit = 20) -> BatchList:
        items, more = page(await batches.desk.all_of(principal.id), after, limit)
        return BatchList(
            data=[batch_object(batch) for batch in await batches.desk.counted(items)],
            first_id=items[0].id if items else None,
            last_id=items[-1].id if items else None,
            has_more=more,
        )

    @router.get("/{batch_id}", summary="One of them", operation_id="retrieve_batch")
    async def retrieve_batch(batch_id: str, principal: caller) -> Batch:
        return batch_object(await batches.desk.get(principal.id, batch_id))

    @router.post("/{batch_id}/cancel", summary="Stop it; what is finished stays", operation_id="cancel_batch")
    async def cancel_batch(batch_id: str, principal: caller) -> Batch:
        return batch_object(await batches.desk.cancel(principal.id, batch_id))

    return router
