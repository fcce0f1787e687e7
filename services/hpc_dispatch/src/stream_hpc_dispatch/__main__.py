"""`python -m stream_hpc_dispatch`: worker leases, and the pool for the gateways."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping

from pydantic import ValidationError

from stream_core import bus, tickets
from stream_core.broker_client import Client, Msg, NatsError
from stream_core.deployment import ClusterConfig, Deployment
from stream_core.envelope.keys import SECRET_BYTES
from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.ids import new_id
from stream_core.lifecycle import announce_ready, run
from stream_core.settings import read_deployment, read_secret
from stream_core.telemetry import Once, configure_logs
from stream_core.wire import subjects
from stream_hpc_dispatch import VERSION
from stream_hpc_dispatch.bucket import FAULTS, Bucket, NoJetStreamError
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import Cluster
from stream_hpc_dispatch.diary import Diary
from stream_hpc_dispatch.dispatch import Dispatch, Promises
from stream_hpc_dispatch.jobs import Pool, clusters_of, pools_of
from stream_hpc_dispatch.plan import Limits, PoolKey
from stream_hpc_dispatch.records import Record
from stream_hpc_dispatch.server import Servicer
from stream_hpc_dispatch.settings import DispatchSettings
from stream_hpc_dispatch.vault import Found, Vault

_log = logging.getLogger("stream_hpc_dispatch")
_RPC_GRACE_S = 0.5
"""For calls under way at the end; watches have ended by then, and a request takes no time."""


def promises_of(settings: DispatchSettings, pools: Mapping[PoolKey, Pool]) -> Promises:
    """Read what goes into every lease, and try the signing key once.

    Raises:
        ConfigError: no relay for the pools, or a key that signs nothing.
    """
    if pools and not settings.relays:
        raise ConfigError("at least one relay is needed, the deployment has pools", param="relays")
    private_key = read_secret(settings.ticket_private_key_file)
    try:
        tickets.issue(private_key, lease_id=new_id(), now=time.time(), lifetime_s=1)
    except Exception as error:
        raise ConfigError(
            f"{settings.ticket_private_key_file} is no Ed25519 private key in PEM ({type(error).__name__})",
            param="ticket_private_key_file",
        ) from error
    return Promises(settings.relays, private_key, settings.relay_ca_file)


def _limits(settings: DispatchSettings) -> Limits:
    return Limits(
        lost_after_s=settings.lost_after_s,
        remove_after_s=settings.remove_after_s,
        renew_before_s=settings.renew_before_s,
        expiry_grace_s=settings.expiry_grace_s,
        ending_s=settings.ending_s,
        backoff_first_s=settings.backoff_first_s,
        backoff_last_s=settings.backoff_last_s,
    )


def lease_key(settings: DispatchSettings) -> bytes:
    """Read the key that seals the leases; empty when there is none.

    Raises:
        ConfigError: not readable, or not 64 hex digits.
    """
    if settings.lease_key_file is None:
        return b""
    try:
        key = bytes.fromhex(read_secret(settings.lease_key_file))
    except ValueError:
        key = b""
    if len(key) != SECRET_BYTES:
        raise ConfigError(f"{settings.lease_key_file} must hold {2 * SECRET_BYTES} hex digits", param="lease_key_file")
    return key


@contextlib.asynccontextmanager
async def _open_vault(settings: DispatchSettings, client: Client, key: bytes) -> AsyncIterator[tuple[Vault, Found]]:
    """Find the bucket, read what an earlier run left, and write to it until the block ends."""
    bucket = None
    if key:
        try:
            bucket = await Bucket.open(client, settings.lease_bucket, replicas=settings.lease_replicas)
        except NoJetStreamError as error:
            _log.warning("leases are kept in memory only: %s", error.message)
    counters = settings.state_dir / "lease-counters.json"
    vault = Vault(bucket, key, Once(_log).note, clock=time.time, counters=counters)
    try:
        found = await vault.load()
    except FAULTS as error:
        raise ConfigError(f"bucket {settings.lease_bucket!r} can't be read: {error}", param="lease_bucket") from error
    writing = asyncio.create_task(vault.run())
    try:
        yield vault, found
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def open_clusters(
    settings: DispatchSettings, deployment: Deployment, pools: Mapping[PoolKey, Pool], found: Found
) -> dict[str, Cluster]:
    """Open the clusters that have a pool, and those that an earlier run has left workers on."""
    used = {key.cluster for key in pools}
    configured = {config.name: config for config in deployment.clusters}
    configs = {name: configured[name] for name in configured if name in used}
    for record in (*found.records, *found.older):
        if record.cluster not in configs and (config := configured.get(record.cluster) or _as_it_was(record)):
            configs[record.cluster] = config
    tied = not (settings.keep_workers and settings.lease_key_file)
    return {
        name: open_cluster(
            config,
            command=settings.worker_command,
            state_dir=settings.state_dir,
            stop_grace_s=settings.stop_grace_s,
            tied=tied,
        )
        for name, config in configs.items()
    }


def _as_it_was(record: Record) -> ClusterConfig | None:
    """Rebuild the configuration of a cluster that stands in the deployment no more; None when that can't be."""
    with contextlib.suppress(ValidationError):
        return ClusterConfig.model_validate({"name": record.cluster, "backend": record.backend})
    return None


@contextlib.asynccontextmanager
async def _connected(settings: DispatchSettings) -> AsyncIterator[Client]:
    client = await bus.connect(settings.nats, name="hpc_dispatch")
    try:
        yield client
    finally:
        await bus.close(client)


async def _listen(client: Client, dispatch: Dispatch) -> None:
    """Listen to all leases: no worker is started before the broker confirmed the subscription."""

    async def receive(message: Msg) -> None:
        dispatch.hear(message.subject, message.data)

    await client.subscribe(subjects.ALL_LEASES_OUT, cb=receive)
    await client.flush()


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop.

    Raises:
        ConfigError: a setting is wrong, the broker is away, or the port is taken.
    """
    settings = DispatchSettings.read()
    configure_logs("hpc_dispatch", settings.log_level)
    deployment = read_deployment()
    pools = pools_of(deployment, start_margin_s=settings.start_margin_s)
    promises, key = promises_of(settings, pools), lease_key(settings)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with _connected(settings) as client, _open_vault(settings, client, key) as (vault, found):

        async def publish(subject: str, message: bytes) -> None:
            with contextlib.suppress(NatsError, OSError):
                await client.publish(subject, message)

        dispatch = Dispatch(
            pools,
            open_clusters(settings, deployment, pools, found),
            promises,
            vault,
            specs=clusters_of(deployment, pools),
            diary=Diary(settings.state_dir / "plan.json", Once(_log).note),
            limits=_limits(settings),
            clock=time.time,
            publish=publish,
            publish_interval_s=settings.publish_interval_s,
            refresh_s=settings.lease_refresh_s,
            look_s=settings.look_s,
        )
        await _listen(client, dispatch)
        async with (
            serve_grpc(settings.listen, settings.tls, Servicer(dispatch).register, grace_s=_RPC_GRACE_S) as port,
            asyncio.TaskGroup() as tasks,
        ):
            publishing = tasks.create_task(dispatch.feed.run())
            announce_ready(settings.ready_file, port=port)
            _log.info("ready", extra={"port": port, "pools": len(pools), "leases": vault.place})
            await dispatch.run(stop, found=found, tick_s=settings.tick_s, listening=lambda: client.is_connected)
            publishing.cancel()
            dispatch.feed.publish()
            dispatch.feed.close()


def main() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-hpc-dispatch {VERSION}\n")
        return
    run("stream-hpc-dispatch", serve)


if __name__ == "__main__":
    main()
