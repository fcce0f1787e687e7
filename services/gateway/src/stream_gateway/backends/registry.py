"""The tiers' backends, built from the deployment and rebuilt when it changes, under the feet of running streams.

A generation is one reading of the deployment with its backends. A request holds the generation it began with; a
backend is closed when no generation that is current or held has it any more. Tiers that a new deployment leaves as
they are keep their backend, and with it their connections and what is known of their health.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stream_core.deployment import ClusterConfig, Deployment, TierConfig
from stream_core.errors import ConfigError, UpstreamUnavailable
from stream_core.ids import new_id
from stream_core.wire.window import Limits
from stream_gateway.backends.contract import Answer, Backend, Call, OfferedModel, offered
from stream_gateway.backends.http import HttpBackend
from stream_gateway.privacy.detector import Detector
from stream_gateway.routing import ModelView, TierView
from stream_gateway.settings import GatewaySettings
from stream_gateway.standing import Standing

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One tier with its backend."""

    tier: TierConfig
    clusters: tuple[ClusterConfig, ...]
    backend: Backend


@dataclass(eq=False)
class Generation:
    """One reading of the deployment."""

    deployment: Deployment
    entries: dict[str, Entry] = field(default_factory=dict)
    holders: int = 0
    detector: Detector = field(init=False)
    """Of the deployment's policy."""

    def __post_init__(self) -> None:
        self.detector = Detector(self.deployment.policy)

    def view(self) -> list[TierView]:
        """What the tiers offer at this moment, cheapest first."""
        return [
            TierView(name, entry.tier.privacy, tuple(_seen(entry.backend, model) for model in entry.backend.models()))
            for name, entry in self.entries.items()
        ]


def _seen(backend: Backend, model: OfferedModel) -> ModelView:
    clusters = tuple(backend.standings(model.id).items())
    return ModelView(model, None if clusters else backend.unavailable(model.id), clusters)


class _Part(Protocol):
    async def start(self) -> None: ...
    async def aclose(self) -> None: ...


class Absent:
    """A tier that can't work as this gateway is set up: it says why."""

    def __init__(self, models: list[OfferedModel], clusters: Mapping[str, Sequence[str]], reason: str) -> None:
        """Offer these models, all of them away.

        Args:
            models: of the tier.
            clusters: the ids of the models that each offers.
            reason: why they are away.
        """
        self._models = models
        self._clusters = clusters
        self._reason = reason

    def models(self) -> list[OfferedModel]:
        """What the configuration lists."""
        return self._models

    def unavailable(self, model: str) -> str:  # noqa: ARG002  (the same for all)
        """Why."""
        return self._reason

    def standings(self, model: str) -> dict[str, Standing]:
        """Offline wherever it would be."""
        names = [name for name, models in self._clusters.items() if model in models]
        return {name: Standing("offline", self._reason) for name in names}

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        """Nobody to ask."""

    def note(self) -> str:
        """Nothing more than why it is unavailable."""
        return ""

    async def open(self, call: Call) -> Answer:  # noqa: ARG002
        """Refuse."""
        raise UpstreamUnavailable(self._reason)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""


class Registry:
    """The current generation, and those that running requests still hold."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Begin without a generation: `load` makes the first."""
        self._settings = settings
        self._generations: list[Generation] = []
        self._hpc: tuple[Any, Any, Any] | None = None
        self._parts: list[_Part] = []

    @property
    def current(self) -> Generation:
        """The newest generation."""
        return self._generations[-1]

    @property
    def hpc(self) -> tuple[Any, Any] | None:
        """The channel and the pool that all tiers of kind hpc share; None without such a tier."""
        return self._hpc[:2] if self._hpc else None

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return len(self._hpc[2]) if self._hpc else 0

    async def load(self, deployment: Deployment) -> None:
        """Make a deployment the current one.

        Raises:
            ConfigError: it can't be set up; the current one stays.
        """
        known = self._generations[-1].entries if self._generations else {}
        fresh: list[Backend] = []
        generation = Generation(deployment)
        try:
            for tier in deployment.tiers:
                if not tier.enabled:
                    continue
                clusters = tuple(cluster for cluster in deployment.clusters if cluster.tier == tier.name)
                entry = known.get(tier.name)
                if entry is None or (entry.tier, entry.clusters) != (tier, clusters):
                    entry = Entry(tier, clusters, await self._build(tier, clusters))
                    await entry.backend.start()
                    fresh.append(entry.backend)
                generation.entries[tier.name] = entry
        except ConfigError:
            for backend in fresh:
                await backend.aclose()
            raise
        self._generations.append(generation)
        await self._retire()

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[Generation]:
        """Keep the current generation's backends open until the block ends."""
        generation = self.current
        generation.holders += 1
        try:
            yield generation
        finally:
            generation.holders -= 1
            if generation is not self.current and not generation.holders:
                await self._retire()

    async def settled(self) -> None:
        """Wait until the pool of the tiers of kind hpc is known; at once without such a tier."""
        if self._hpc is not None:
            await self._hpc[1].known.wait()

    async def aclose(self) -> None:
        """Close everything."""
        generations, self._generations = self._generations, []
        await self._close_unused(generations)
        for part in reversed(self._parts):
            await part.aclose()
        self._parts.clear()

    async def _retire(self) -> None:
        kept = [generation for generation in self._generations if generation.holders or generation is self.current]
        gone = [generation for generation in self._generations if generation not in kept]
        self._generations = kept
        await self._close_unused(gone)

    async def _close_unused(self, gone: list[Generation]) -> None:
        used = {id(entry.backend) for kept in self._generations for entry in kept.entries.values()}
        backends = {id(entry.backend): entry.backend for old in gone for entry in old.entries.values()}
        for key, backend in backends.items():
            if key not in used:
                await backend.aclose()

    async def _build(self, tier: TierConfig, clusters: tuple[ClusterConfig, ...]) -> Backend:
        if tier.kind == "http":
            return HttpBackend(tier, probe_interval_s=self._settings.probe_interval_s)
        if not self._settings.dispatch_target:
            models = [offered(pool.model) for cluster in clusters for pool in cluster.pools]
            models = models or [offered(model) for model in tier.models]
            offering = {cluster.name: [pool.model.id for pool in cluster.pools] for cluster in clusters}
            return Absent(models, offering, "the gateway is not told where hpc_dispatch is (dispatch_target)")
        return await self._build_hpc(tier, clusters)

    async def _build_hpc(self, tier: TierConfig, clusters: tuple[ClusterConfig, ...]) -> Backend:
        # Only a deployment with an HPC tier pays for the broker's client and the sealing.
        from stream_gateway.backends.hpc import HpcBackend  # noqa: PLC0415
        from stream_gateway.channel import Channel  # noqa: PLC0415
        from stream_gateway.pool import PoolWatch  # noqa: PLC0415
        from stream_gateway.waiting import Waiting  # noqa: PLC0415

        if self._hpc is None:
            gateway_id = new_id()
            limits = Limits(most=self._settings.max_window_bytes, budget=self._settings.window_budget_bytes)
            channel = Channel(self._settings.nats, gateway_id, limits=limits)
            pool = PoolWatch(self._settings.dispatch_target, self._settings.tls, gateway_id)
            waiting = Waiting(limit=self._settings.max_waiting, heartbeat_s=self._settings.heartbeat_s)
            pool.on_lost.append(channel.lost)
            pool.on_change.append(waiting.look)
            channel.on_free.append(waiting.look)
            for part in (channel, pool, waiting):
                await part.start()
                self._parts.append(part)
            self._hpc = channel, pool, waiting
        channel, pool, waiting = self._hpc
        return HpcBackend(tier, list(clusters), channel, pool, waiting)
