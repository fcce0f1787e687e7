"""/v1/files: uploads go to the store as they come, downloads come from it as they are read."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from stream_core.errors import InvalidRequest
from stream_gateway.accounts.principal import Principal
from stream_gateway.batches.service import Batches
from stream_gateway.routes.asking import demand_plain
from stream_gateway.routes.callers import LONGEST_PAGE, Callers, Limit, page
from stream_gateway.routes.models import Error
from stream_gateway.routes.shapes import FileDeleted, FileList, FileObject, file_object

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer"},
                    },
                }
            }
        },
    }
}


def file_routes(callers: Callers, batches: Batches) -> APIRouter:
    """Build the routes.

    Args:
        callers: who may ask.
        batches: where files are.
    """
    router = APIRouter(
        prefix="/v1/files",
        tags=["files"],
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        responses={
            400: {"model": Error, "description": "A field is wrong, or a limit bites"},
            401: {"model": Error, "description": "No valid API key"},
            404: {"model": Error, "description": "No such file of this key, or no files in this deployment"},
            503: {"model": Error, "description": "The store can't be reached now"},
        },
    )
    caller = Annotated[Principal, Depends(callers)]

    @router.post(
        "",
        summary="Upload a file",
        operation_id="create_file",
        openapi_extra=_FORM,
        responses={
            413: {"model": Error, "description": "The file is too large"},
            415: {"model": Error, "description": "The upload is compressed"},
        },
    )
    async def create_file(
        request: Request, principal: caller, x_stream_privacy: Annotated[str | None, Header()] = None
    ) -> FileObject:
        demand_plain(request.headers.get("content-encoding", "").encode("latin-1"))
        length = request.headers.get("content-length", "")
        try:
            file = await batches.files.upload(
                principal.id,
                callers.privacy(principal, x_stream_privacy),
                content_type=request.headers.get("content-type", ""),
                declared=int(length) if length.isdecimal() else None,
                body=request.stream(),
            )
        except ClientDisconnect as error:
            raise InvalidRequest("the client left in the middle of its upload") from error
        return file_object(file)

    @router.get("", summary="List files", operation_id="list_files")
    async def list_files(
        principal: caller,
        purpose: str | None = None,
        limit: Limit = LONGEST_PAGE,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
        after: str | None = None,
    ) -> FileList:
        files = [file for file in await batches.files.all_of(principal.id) if purpose in {None, file.purpose}]
        items, more = page(files[::-1] if order == "asc" else files, after, limit)
        return FileList(
            data=[file_object(file) for file in items],
            first_id=items[0].id if items else None,
            last_id=items[-1].id if items else None,
            has_more=more,
        )

    @router.get("/{file_id}", summary="One of them", operation_id="retrieve_file")
    async def retrieve_file(file_id: str, principal: caller) -> FileObject:
        return file_object(await batches.files.get(principal.id, file_id))

    @router.delete("/{file_id}", summary="Delete it", operation_id="delete_file")
    async def delete_file(file_id: str, principal: caller) -> FileDeleted:
        await batches.files.delete(principal.id, file_id)
        return FileDeleted(id=file_id)

    @router.get(
        "/{file_id}/content",
        summary="Its content",
        operation_id="download_file",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def download_file(file_id: str, principal: caller) -> StreamingResponse:
        file = await batches.files.get(principal.id, file_id)
        headers = {"content-length": str(file.bytes), "content-disposition": "attachment", "cache-control": "no-store"}
        return StreamingResponse(batches.files.content(file), media_type="application/octet-stream", headers=headers)

    return router
