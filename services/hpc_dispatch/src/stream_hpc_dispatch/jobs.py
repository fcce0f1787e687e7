"""From the deployment to pools, and from a lease to the pilot job that a backend gets. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stream_core.deployment import Deployment, PoolConfig
from stream_core.errors import ConfigError
from stream_core.ids import to_hex
from stream_core.wire.job import EngineSpec, PilotJob
from stream_core.wire.payloads import ModelOffer
from stream_hpc_dispatch.plan import ClusterSpec, PoolKey, PoolSpec

_SERVED: Final = {"model", "engine_url", "engine_command", "engine_environment", "engine_ready_path", "max_requests"}
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of the deployment: what the plan needs of it, and all of it."""

    spec: PoolSpec
    config: PoolConfig

    @property
    def offers(self) -> list[ModelOffer]:
        """The models that its workers are told to serve."""
        model = self.config.model
        return [
            ModelOffer(
                id=model.id,
                engine_model=model.engine_model,
                context_window=model.context_window,
                modalities=list(model.modalities),
                capabilities=list(model.capabilities),
                demo=model.demo,
            )
        ]

    @property
    def fingerprint(self) -> str:
        """Of what its workers are told to serve: a worker with another one is not this pool's any more."""
        return hashlib.sha256(self.config.model_dump_json(include=_SERVED).encode()).hexdigest()


def pools_of(deployment: Deployment, *, start_margin_s: float) -> dict[PoolKey, Pool]:
    """List the pools of all clusters whose tier is enabled, in the file's order.

    Args:
        deployment: the whole file.
        start_margin_s: what a worker may take to start, besides its engine's own limit.

    Raises:
        ConfigError: a pool that can't be run; the message names it by its place in the file.
    """
    pools: dict[PoolKey, Pool] = {}
    for cluster in deployment.clusters:
        if deployment.tier(cluster.tier) is None:
            continue
        for index, config in enumerate(cluster.pools):
            where = f"clusters.{cluster.name}.pools.{index}"
            key = PoolKey(cluster.name, config.model.id)
            if key in pools:
                raise ConfigError(f"cluster {key.cluster!r} has two pools of model {key.model!r}", param=where)
            if not config.engine_url and not config.engine_command:
                raise ConfigError("engine_url or engine_command is needed", param=where)
            if config.min_ready > config.max_workers:
                raise ConfigError(
                    f"min_ready {config.min_ready}, at most max_workers {config.max_workers}", param=where
                )
            spec = PoolSpec(
                key=key,
                min_ready=config.min_ready,
                max_workers=config.max_workers,
                walltime_s=config.walltime_s,
                start_limit_s=config.engine_start_timeout_s + start_margin_s,
                renewal_surge=config.renewal_surge,
                max_requests=config.max_requests,
                target_load=config.target_load,
                idle_timeout_s=config.idle_timeout_s,
                queue_margin_s=config.queue_margin_s,
                pending_limit_s=config.pending_limit_s,
                max_failures=config.max_failures,
                retry_after_s=config.retry_after_s,
                nodes=config.nodes,
            )
            pools[key] = Pool(spec, config)
    return pools


def clusters_of(deployment: Deployment, pools: Mapping[PoolKey, Pool]) -> tuple[ClusterSpec, ...]:
    """List the clusters that have a pool, in the file's order."""
    used = {key.cluster for key in pools}
    return tuple(
        ClusterSpec(
            name=cluster.name,
            priority=cluster.priority,
            node_s_per_day=None if cluster.node_hours_per_day is None else cluster.node_hours_per_day * _HOUR_S,
        )
        for cluster in deployment.clusters
        if cluster.name in used
    )


def build_job(
    pool: Pool,
    *,
    lease_id: bytes,
    bootstrap_secret: bytes,
    ticket: str,
    expires: float,
    relays: list[str],
    ca_file: str = "",
    trace: Mapping[str, str] | None = None,
) -> PilotJob:
    """Write down everything one worker is to know.

    Args:
        pool: whose worker it is.
        lease_id: 16 bytes.
        bootstrap_secret: 32 bytes.
        ticket: for the relays.
        expires: unix seconds.
        relays: URLs, tried in order.
        ca_file: a PEM bundle for wss:// when the system's does not do.
        trace: context of the request that has it started.
    """
    config = pool.config
    return PilotJob(
        lease=to_hex(lease_id),
        bootstrap_secret=bootstrap_secret,
        ticket=ticket,
        relays=relays,
        expires_unix_s=expires,
        models=pool.offers,
        engine=EngineSpec(
            url=config.engine_url or EngineSpec().url,
            command=config.engine_command,
            environment=config.engine_environment,
            ready_path=config.engine_ready_path,
            start_timeout_s=config.engine_start_timeout_s,
        ),
        max_requests=config.max_requests,
        ca_file=ca_file,
        trace=dict(trace or {}),
    )
