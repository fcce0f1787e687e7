"""Calling gRPC services: mutual TLS, keepalive, round robin over what the name resolves to."""

import grpc
import grpc.aio

from stream_core.settings import TlsFiles

_MAX_MESSAGE = 64 * 1024 * 1024


def open_channel(target: str, tls: TlsFiles, *, peer_name: str = "") -> grpc.aio.Channel:
    """Open a channel; it connects by itself and reconnects quickly after its service was away.

    Args:
        target: "host:port", or any name gRPC resolves.
        tls: certificate files.
        peer_name: what the service's certificate must name; empty: the target's host.
    """
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.aio.secure_channel(
        target,
        credentials,
        options=[
            ("grpc.lb_policy_name", "round_robin"),
            # A rollout moves a service to other addresses within seconds; the library would wait 30 of them.
            ("grpc.dns_min_time_between_resolutions_ms", 500),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            *([("grpc.ssl_target_name_override", peer_name)] if peer_name else []),
        ],
    )
