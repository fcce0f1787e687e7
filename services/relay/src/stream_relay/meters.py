"""What a relay tells Prometheus: sockets, messages and bytes; all that it can see, and nothing of what they say."""

from stream_core.metrics import Gauge, describe_process, single
from stream_relay import VERSION
from stream_relay.bridge import Bridge


def watch(bridge: Bridge) -> None:
    """Let be read what a relay has at the moment."""
    describe_process("relay", VERSION)
    Gauge("stream_relay_connections", "Workers that are connected.", single(lambda: len(bridge.serving)))
    Gauge("stream_relay_unauthenticated", "Sockets without HELLO.", single(lambda: bridge.unauthenticated))
    Gauge("stream_relay_backlog_bytes", "Bytes that wait for the broker.", single(lambda: bridge.backlog))
    Gauge("stream_relay_paused", "Workers that are not read for that.", single(lambda: bridge.paused))
    traffic = bridge.traffic
    Gauge(
        "stream_relay_messages_total",
        "Messages by the way they went.",
        lambda: {("to_gateways",): traffic.messages_up, ("to_workers",): traffic.messages_down},
        ("way",),
        kind="counter",
    )
    Gauge(
        "stream_relay_bytes_total",
        "Bytes, likewise.",
        lambda: {("to_gateways",): traffic.bytes_up, ("to_workers",): traffic.bytes_down},
        ("way",),
        kind="counter",
    )
