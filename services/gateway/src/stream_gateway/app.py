"""The HTTP surface: what asks a model, and probes, as they are; everything else through FastAPI."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from stream_core.health import Readiness
from stream_core.lifecycle import keep_for_good
from stream_gateway.batches.service import Batches
from stream_gateway.routes import health
from stream_gateway.routes.asking import AskRoute, Means
from stream_gateway.routes.endpoints import Endpoint

if TYPE_CHECKING:
    from fastapi import APIRouter

_STORED: Final = ("/v1/files", "/v1/batches", "/v1/responses", "/v1/feedback", "/v1/usage", "/v1/audit")
"""Paths whose answers lie at the broker."""


class App:
    """The ASGI application. FastAPI is loaded aside by `load`, since it would double the time until it is ready."""

    def __init__(
        self,
        means: Means,
        endpoints: Mapping[str, Endpoint],
        batches: Batches,
        ready: Readiness,
        more: Callable[[], "Sequence[APIRouter]"] = tuple,
        numbers: health.Numbers = lambda _: False,
    ) -> None:
        """Put the parts together.

        Args:
            means: of the endpoints that ask a model.
            endpoints: these, by path.
            batches: files and batches.
            more: builds FastAPI's other routes.
            ready: None, or why this gateway should get no new requests.
            numbers: whether a request with these headers may read /metrics.
        """
        self._asking = {
            path: AskRoute(means, endpoint.dialect, endpoint.unlisted) for path, endpoint in endpoints.items()
        }
        self._endpoints = endpoints
        self._means = means
        self._batches = batches
        self._ready = ready
        self._more = more
        self._numbers = numbers
        self._loaded = asyncio.Event()
        self._surface: ASGIApp | None = None

    async def load(self) -> None:
        """Load what is not in a hurry; requests for it wait until then."""
        self._surface = await asyncio.to_thread(self._build)
        keep_for_good()
        self._loaded.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        # No middleware stands between the engine and the client: each would cost something for every token.
        path = scope["path"]
        if route := self._asking.get(path):
            await route(scope, receive, send)
        elif path in health.PATHS:
            await health.answer_probe(scope, self._ready, self._numbers, send)
        else:
            await self._loaded.wait()
            if path.startswith(_STORED):
                await self._batches.tried()
            if self._surface is not None:
                await self._surface(scope, receive, send)

    def _build(self) -> ASGIApp:
        from stream_gateway.surface import build_surface  # noqa: PLC0415  (a third of the program's start)

        return build_surface(self._means.entrance, self._means.registry, self._batches, self._endpoints, self._more())
