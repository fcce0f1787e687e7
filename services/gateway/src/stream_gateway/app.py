"""The HTTP surface: chat and probes as they are, everything else through FastAPI."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from stream_core.health import Readiness
from stream_gateway.auth import Keyring
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.service import Batches
from stream_gateway.routes import chat, health

if TYPE_CHECKING:
    from fastapi import APIRouter


class App:
    """The ASGI application. FastAPI is loaded aside by `load`, since it would double the time until it is ready."""

    def __init__(
        self,
        chat_route: chat.ChatRoute,
        keyring: Keyring,
        registry: Registry,
        batches: Batches,
        ready: Readiness,
        more: Callable[[], "Sequence[APIRouter]"] = tuple,
    ) -> None:
        """Put the parts together.

        Args:
            chat_route: answers POST /v1/chat/completions.
            keyring: who may ask.
            registry: what there is.
            batches: files and batches.
            more: builds FastAPI's other routes.
            ready: None, or why this gateway should get no new requests.
        """
        self._chat_route = chat_route
        self._keyring = keyring
        self._registry = registry
        self._batches = batches
        self._ready = ready
        self._more = more
        self._loaded = asyncio.Event()
        self._surface: ASGIApp | None = None

    async def load(self) -> None:
        """Load what is not in a hurry; requests for it wait until then."""
        self._surface = await asyncio.to_thread(self._build)
        self._loaded.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        # No middleware stands between the engine and the client: each would cost something for every token.
        path = scope["path"]
        if path == chat.PATH:
            await self._chat_route(scope, receive, send)
        elif path in health.PATHS and scope["method"] in {"GET", "HEAD"}:
            await health.answer_probe(path, self._ready, send)
        else:
            await self._loaded.wait()
            if self._surface is not None:
                await self._surface(scope, receive, send)

    def _build(self) -> ASGIApp:
        from stream_gateway.surface import build_surface  # noqa: PLC0415  (a third of the program's start)

        return build_surface(self._keyring, self._registry, self._batches, self._more())
