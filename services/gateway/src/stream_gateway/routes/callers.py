"""Who asks, of which class their text is, and a page of a list: what the routes of files and batches share."""

from collections.abc import Sequence
from typing import Annotated, Final, Protocol, TypeVar

from fastapi import Query, Request

from stream_core.errors import InvalidRequest
from stream_core.privacy import strictest
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.routing import request_class

LONGEST_PAGE: Final = 10_000
Limit = Annotated[int, Query(ge=1, le=LONGEST_PAGE)]


class _Named(Protocol):
    @property
    def id(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


class Callers:
    """Tells who asks.

    Args:
        entrance: who may.
        registry: with the policy.
    """

    def __init__(self, entrance: Entrance, registry: Registry) -> None:
        self._entrance = entrance
        self._registry = registry

    async def __call__(self, request: Request) -> Principal:
        """Authenticate a request; a dependency of FastAPI."""
        return await self._entrance.authenticate(request.headers.raw)

    def privacy(self, principal: Principal, header: str | None) -> str:
        """Tell the class of what a request brings; errors as `request_class`."""
        return request_class(self._registry.current.deployment.policy, principal.privacy, header)

    def strictest(self, one: str, other: str) -> str:
        """Tell the more confidential of two classes: one that the policy no longer knows, which nobody may see."""
        return strictest(self._registry.current.deployment.policy.classes, one, other)


def page(items: Sequence[_N], after: str | None, limit: int) -> tuple[list[_N], bool]:
    """Cut a page out of a list: (its items, whether there are more).

    Raises:
        InvalidRequest: `after` names none of them.
    """
    start = 0
    if after is not None:
        start = next((place for place, item in enumerate(items, 1) if item.id == after), 0)
        if not start:
            raise InvalidRequest(f"after: {after[:60]!r} is not in the list", param="after")
    return list(items[start : start + limit]), start + limit < len(items)
