"""Serving gRPC: mutual TLS, the standard health service, a drain at the end."""

import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from stream_core.errors import ConfigError
from stream_core.grpc_tracing import TracedCalls
from stream_core.settings import TlsFiles

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of one gRPC message; a conversation with images may be tens of megabytes."""

_CONNECTION_AGE_MS = 30_000
"""A client connects again after so long: only then it asks the name service anew, and finds replicas that were added.
Calls under way are not cut."""

Register = Callable[[grpc.aio.Server], None]


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Read the files; a peer without a certificate of the same authority is refused."""
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.ca.read_bytes(),
        require_client_auth=True,
    )


@contextlib.asynccontextmanager
async def serve_grpc(address: str, tls: TlsFiles, register: Register, *, grace_s: float = 10.0) -> AsyncIterator[int]:
    """Serve until the block ends; then health says NOT_SERVING and running calls get `grace_s` to finish.

    Args:
        address: "host:port"; port 0 takes a free one.
        tls: certificate files.
        register: adds the program's servicer.
        grace_s: seconds.

    Yields:
        The port.

    Raises:
        ConfigError: the address can't be bound.
    """
    server = grpc.aio.server(
        interceptors=[TracedCalls()],
        options=[
            ("grpc.so_reuseport", 0),  # two services on one port must fail, not share it
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
    )
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    register(server)
    try:
        port = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise ConfigError(f"can't listen on {address}: {error}", param="listen") from error
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await health.enter_graceful_shutdown()
        await server.stop(grace_s)
