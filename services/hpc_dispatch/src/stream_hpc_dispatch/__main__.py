"""`python -m stream_hpc_dispatch`: worker leases, and the pool for the gateways."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg

from stream_core import bus, tickets
from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.ids import new_id
from stream_core.lifecycle import announce_ready, run
from stream_core.settings import read_deployment, read_secret
from stream_core.telemetry import configure_logs
from stream_core.wire import subjects
from stream_hpc_dispatch import VERSION
from stream_hpc_dispatch.clusters import open_cluster
from stream_hpc_dispatch.clusters.base import Cluster
from stream_hpc_dispatch.dispatch import Dispatch, Promises
from stream_hpc_dispatch.jobs import Pool, pools_of
from stream_hpc_dispatch.plan import Limits, PoolKey
from stream_hpc_dispatch.server import Servicer
from stream_hpc_dispatch.settings import DispatchSettings

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
        backoff_first_s=settings.backoff_first_s,
        backoff_last_s=settings.backoff_last_s,
    )


@contextlib.asynccontextmanager
async def _connected(settings: DispatchSettings, dispatch: Dispatch) -> AsyncIterator[Client]:
    """Connect and listen to all leases: no worker is started before the broker confirmed the subscription."""

    async def receive(message: Msg) -> None:
        dispatch.hear(message.subject, message.data)

    client = await bus.connect(settings.nats, name="hpc_dispatch")
    try:
        await client.subscribe(subjects.ALL_LEASES_OUT, cb=receive)
        await client.flush()
        yield client
    finally:
        await client.close()


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop.

    Raises:
        ConfigError: a setting is wrong, the broker is away, or the port is taken.
    """
    settings = DispatchSettings.read()
    configure_logs("hpc_dispatch", settings.log_level)
    deployment = read_deployment()
    pools = pools_of(deployment, start_margin_s=settings.start_margin_s)
    promises = promises_of(settings, pools)
    used = {key.cluster for key in pools}
    clusters: dict[str, Cluster] = {
        config.name: open_cluster(
            config,
            command=settings.worker_command,
            state_dir=settings.state_dir,
            stop_grace_s=settings.stop_grace_s,
        )
        for config in deployment.clusters
        if config.name in used
    }
    dispatch = Dispatch(
        pools,
        clusters,
        promises,
        limits=_limits(settings),
        clock=time.time,
        publish_interval_s=settings.publish_interval_s,
    )
    async with (
        _connected(settings, dispatch) as client,
        serve_grpc(settings.listen, settings.tls, Servicer(dispatch).register, grace_s=_RPC_GRACE_S) as port,
        asyncio.TaskGroup() as tasks,
    ):
        publishing = tasks.create_task(dispatch.feed.run())
        announce_ready(settings.ready_file, port=port)
        _log.info("ready", extra={"port": port, "pools": len(pools)})
        await dispatch.run(stop, tick_s=settings.tick_s, listening=lambda: client.is_connected)
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
