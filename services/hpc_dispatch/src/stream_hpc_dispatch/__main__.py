"""`python -m stream_hpc_dispatch`: worker leases, and the pool for the gateways."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping

from stream_core import bus, tickets, tracing
from stream_core.broker_client import Client
from stream_core.envelope.keys import SECRET_BYTES
from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.health import serve_metrics
from stream_core.ids import new_id
from stream_core.lifecycle import announce_ready, run
from stream_core.settings import read_deployment, read_secret
from stream_core.telemetry import configure_logs
from stream_hpc_dispatch import VERSION
from stream_hpc_dispatch.desk import Desk
from stream_hpc_dispatch.dispatch import Promises
from stream_hpc_dispatch.jobs import Pool, pools_of
from stream_hpc_dispatch.meters import Meters
from stream_hpc_dispatch.plan import PoolKey
from stream_hpc_dispatch.server import Servicer
from stream_hpc_dispatch.settings import DispatchSettings
from stream_hpc_dispatch.terms import Site, lead, replicate

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
async def _connected(settings: DispatchSettings) -> AsyncIterator[Client]:
    client = await bus.connect(settings.nats, name="hpc_dispatch")
    try:
        yield client
    finally:
        await bus.close(client)


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop.

    Raises:
        ConfigError: a setting is wrong, the broker is away, or the port is taken.
    """
    settings = DispatchSettings.read()
    configure_logs("hpc_dispatch", settings.log_level)
    tracing.configure("hpc_dispatch", settings.traces)
    deployment = read_deployment()
    pools = pools_of(deployment, start_margin_s=settings.start_margin_s)
    promises, key = promises_of(settings, pools), lease_key(settings)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    desk = Desk(settings.tls, settings.peer_name)
    async with (
        _connected(settings) as client,
        serve_grpc(settings.listen, settings.tls, Servicer(desk).register, grace_s=_RPC_GRACE_S) as port,
        serve_metrics(settings.metrics_host, settings.metrics_port, lambda: _why_not(client)) as told,
    ):

        def ready(leases: str) -> None:
            announce_ready(settings.ready_file, port=port, **told)
            _log.info("ready", extra={"port": port, "pools": len(pools), "leases": leases})

        site = Site(settings, deployment, pools, promises, key, client, desk, Meters())
        try:
            if settings.advertise:
                host, _, advertised = settings.advertise.rpartition(":")
                ready(f"bucket {settings.lease_bucket}")
                await replicate(site, stop, f"{host}:{port if advertised == '0' else advertised}")
            else:
                await lead(site, stop, ready)
        finally:
            desk.close()


def _why_not(client: Client) -> str | None:
    """Say why this program can't do its work now."""
    return None if client.is_connected else "no broker"


def main() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-hpc-dispatch {VERSION}\n")
        return
    run("stream-hpc-dispatch", serve)


if __name__ == "__main__":
    main()
