"""Everything that is not in a hurry, through FastAPI: models, the OpenAPI document; errors in OpenAI's body."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream_core.errors import InvalidRequest, StreamError
from stream_core.ids import new_id, to_hex
from stream_gateway import __version__
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.service import Batches
from stream_gateway.dialects.messages_errors import error_reply, in_messages_form
from stream_gateway.errors import Reply, framework_body, reply_to
from stream_gateway.routes import health
from stream_gateway.routes.batches import batch_routes
from stream_gateway.routes.callers import Callers
from stream_gateway.routes.endpoints import Endpoint, openapi_paths, openapi_schemas
from stream_gateway.routes.files import file_routes
from stream_gateway.routes.models import Error, model_routes
from stream_gateway.routes.responses import response_routes

_log = logging.getLogger(__name__)
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def build_surface(
    entrance: Entrance,
    registry: Registry,
    batches: Batches,
    endpoints: Mapping[str, Endpoint],
    more: Sequence[APIRouter] = (),
) -> ASGIApp:
    """Put FastAPI's routes together.

    Args:
        entrance: who may ask.
        registry: what there is.
        batches: files and batches.
        endpoints: those that ask a model, to be described.
        more: routes beside the models.
    """
    started = int(time.time())
    app = FastAPI(
        title="STREAM",
        version=__version__,
        summary="One OpenAI-compatible endpoint in front of local, HPC and cloud models",
        redoc_url=None,
    )
    app.include_router(model_routes(entrance, registry, started))
    callers = Callers(entrance, registry)
    app.include_router(file_routes(callers, batches))
    app.include_router(batch_routes(callers, batches))
    app.include_router(response_routes(callers, batches))
    for router in more:
        app.include_router(router)
    app.add_exception_handler(StreamError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_error)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = described()
            # A wrong field is 400 here, as in OpenAI's API, whatever the framework would say.
            for operation in [operation for path in document["paths"].values() for operation in path.values()]:
                operation["responses"].pop("422", None)
            document["paths"] |= {**openapi_paths(endpoints), **health.openapi_paths()}
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schemas |= {**dict(openapi_schemas()), "Error": Error.model_json_schema(ref_template=_SCHEMAS)}
            schemas |= schemas["Error"].pop("$defs", {})
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return partial(_with_request_id, app)


_SCHEMAS = "#/components/schemas/{model}"


async def _on_error(request: Request, error: Exception) -> Response:
    request_id = request.scope["state"]["request_id"]
    if not isinstance(error, StreamError):
        _log.error("request failed", exc_info=error, extra={"request_id": request_id})
    return _response((error_reply if _speaks_messages(request) else reply_to)(error, request_id))


def _allowed(request: Request) -> list[str]:
    """List the methods that a path has, over all its routes."""
    routes = request.app.router.routes
    tried = ({**request.scope, "method": method} for method in _METHODS)
    return [scope["method"] for scope in tried if any(route.matches(scope)[0] is Match.FULL for route in routes)]


def _speaks_messages(request: Request) -> bool:
    """Whether a path belongs to Anthropic's API, whose errors have another form."""
    return request.url.path.startswith("/v1/messages")


async def _on_http_error(request: Request, error: Exception) -> Response:
    status, headers, detail = 500, {}, ""
    if isinstance(error, HTTPException):
        status, detail = error.status_code, error.detail
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(_allowed(request))  # the framework names one route's alone
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    body = framework_body(status, detail)
    if _speaks_messages(request):
        body = in_messages_form(body, status, request.scope["state"]["request_id"])
    return _response(Reply(status, [(b"content-type", b"application/json"), *pairs], body))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Name the first field that is wrong, as OpenAI does."""
    found = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
    place = ".".join(str(step) for step in found.get("loc", ())[1:])
    words = f"{place or 'body'}: {found.get('msg', 'it is not valid JSON')}"
    return await _on_error(request, InvalidRequest(words, param=place or None))


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status)
    response.raw_headers = [*response.raw_headers, *reply.headers]
    return response


async def _with_request_id(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = to_hex(new_id())
    scope.setdefault("state", {})["request_id"] = request_id

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("ascii"))]
        await send(message)

    await app(scope, receive, send_with_id)
