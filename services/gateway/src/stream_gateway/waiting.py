"""Requests that wait for a worker: they are counted, called in their order, and hpc_dispatch is told how many.

A request waits at its tier's backend while no worker of its model is ready, or none has a place and another one may
come. It is called when one has a place; it gives up when its limit is over, or when nothing is coming any more.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from stream_core.errors import WorkerNotReady, WorkerRefused
from stream_gateway.backends.contract import Tell
from stream_gateway.standing import Standing, in_words
from stream_gateway.waiting_room import WaitingRoom

_DEMAND_S: Final = 1.0
"""Between two reports to hpc_dispatch of how many wait."""
_HOPELESS_S: Final = 10.0
"""How long a request waits on while its model is offline and nothing is on its way."""
_T = TypeVar("_T")


class Tier(Protocol):
    """What the waiting must know of a tier of clusters."""

    name: str

    def standing(self, model: str, clusters: frozenset[str] | None) -> Standing:
        """How a model stands on these clusters."""
        ...

    def places(self, model: str, clusters: frozenset[str] | None) -> int:
        """Requests that its ready workers would take now."""
        ...

    def cluster_to_wake(self, model: str, clusters: frozenset[str] | None) -> str | None:
        """Where a worker should be started; None: nowhere."""
        ...

    def request(self, model: str, cluster: str, waiting: int) -> None:
        """Ask hpc_dispatch for a worker there."""
        ...


@dataclass(frozen=True)
class Wish:
    """What a request waits for."""

    tier: Tier
    model: str
    clusters: frozenset[str] | None
    """That may answer it; None: all of the tier."""


@dataclass(eq=False)
class _Place:
    wish: Wish
    called: asyncio.Event = field(default_factory=asyncio.Event)


class Waiting:
    """All waiting requests of this gateway.

    Args:
        limit: how many may wait at once.
        heartbeat_s: seconds between two words to a client.
    """

    def __init__(self, *, limit: int = 1_000, heartbeat_s: float = 5.0) -> None:
        self._room: WaitingRoom[Wish] = WaitingRoom(limit)
        self._places: dict[int, _Place] = {}
        self._heartbeat_s = heartbeat_s
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._room)

    def has(self, wish: Wish) -> bool:
        """Whether others wait for the same."""
        return wish in self._room.waiting()

    async def start(self) -> None:
        """Begin to report; returns at once."""
        self._task = asyncio.create_task(self._report())

    async def aclose(self) -> None:
        """Stop reporting."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look(self) -> None:
        """Call those for whom there is a place now: due whenever the pool changed or an answer ended."""
        for wish in self._room.waiting():
            for number in self._room.call(wish, wish.tier.places(wish.model, wish.clusters)):
                self._places[number].called.set()

    async def wait(self, wish: Wish, tell: Tell, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Wait until a worker takes the request.

        Args:
            wish: what for.
            tell: gets words for the client, at once and then every few seconds.
            attempt: asks the workers; `WorkerRefused` and `WorkerNotReady` of it mean to wait on.

        Raises:
            WorkerNotReady: too many wait already, or the limit is over.
        """
        number = self._room.enter(wish)
        place = self._places[number] = _Place(wish)
        try:
            if self._room.waiting().get(wish) == 1:
                self._demand()
            return await self._wait(number, place, tell, attempt)
        finally:
            del self._places[number]
            self._room.leave(number)

    async def _wait(self, number: int, place: _Place, tell: Tell, attempt: Callable[[], Awaitable[_T]]) -> _T:
        wish, now = place.wish, asyncio.get_running_loop().time
        began = heartbeat = now()
        hopeless: float | None = None
        limit_s = wish.tier.standing(wish.model, wish.clusters).wait_s
        self.look()
        while True:
            standing = wish.tier.standing(wish.model, wish.clusters)
            hopeless = None if standing.hot or standing.comes else hopeless or now()
            if not place.called.is_set():
                if now() - began >= limit_s:
                    raise _not_ready(wish, standing, limit_s)
                if hopeless is not None and now() - hopeless >= min(_HOPELESS_S, limit_s):
                    raise _not_ready(wish, standing, now() - began)
            if now() >= heartbeat:
                heartbeat = now() + self._heartbeat_s
                await tell(f"waiting for a worker: {in_words(standing)}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(heartbeat, began + limit_s, now() + _DEMAND_S)):
                    await place.called.wait()
            if place.called.is_set():
                place.called.clear()
                self._room.try_(number)
                try:
                    return await attempt()
                except (WorkerRefused, WorkerNotReady):
                    self._room.back(number)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_DEMAND_S)
            self._demand()
            self.look()

    def _demand(self) -> None:
        demand: Counter[tuple[Tier, str, str]] = Counter()
        for wish, count in self._room.waiting().items():
            cluster = wish.tier.cluster_to_wake(wish.model, wish.clusters)
            if cluster is not None:
                demand[wish.tier, wish.model, cluster] += count
        for (tier, model, cluster), count in demand.items():
            tier.request(model, cluster, count)


def _not_ready(wish: Wish, standing: Standing, waited_s: float) -> WorkerNotReady:
    return WorkerNotReady(
        f"no worker of '{wish.tier.name}/{wish.model}' had a place within {waited_s:.3g} s: {in_words(standing)}",
        retry_after_s=standing.ready_in_s,
    )
