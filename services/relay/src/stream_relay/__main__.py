"""`python -m stream_relay`: workers' WebSockets onto NATS."""

import asyncio
import contextlib
import logging
import ssl
import sys

from picows import ws_create_server

from stream_core import bus, tracing
from stream_core.errors import ConfigError
from stream_core.health import serve_metrics
from stream_core.lifecycle import announce_ready, run
from stream_core.settings import read_secret
from stream_core.telemetry import OnceHandler, configure_logs
from stream_relay import VERSION, meters
from stream_relay.bridge import Bridge
from stream_relay.settings import RelaySettings

_log = logging.getLogger("stream_relay")
_MESSAGE_SLACK = 4096


def _tls(settings: RelaySettings) -> ssl.SSLContext | None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise ConfigError("tls_certificate and tls_key go together", param="tls_certificate")
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context


def _quiet_logger(bridge: Bridge) -> logging.Logger:
    """The library would log each socket that comes and goes, and each fault of a peer with its traceback."""
    logger = logging.getLogger("picows.relay")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.handlers[:] = [OnceHandler(bridge.faults, "websocket")]
    return logger


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop."""
    settings = RelaySettings.read()
    configure_logs("relay", settings.log_level)
    tracing.configure("relay", settings.traces)
    public_key = read_secret(settings.ticket_public_key_file)

    async def broker_back() -> None:
        await bridge.broker_back()

    client = await bus.connect(settings.nats, name="relay", on_reconnect=broker_back)
    bridge = Bridge(settings, public_key, client)
    server = await ws_create_server(
        bridge.accept,
        settings.host,
        settings.port,
        ssl=_tls(settings),
        websocket_handshake_timeout=settings.hello_timeout_s,
        enable_auto_ping=True,
        auto_ping_idle_timeout=settings.ping_interval_s,
        auto_ping_reply_timeout=settings.ping_interval_s,
        max_frame_size=settings.max_message + _MESSAGE_SLACK,
        logger_name=_quiet_logger(bridge),
    )
    pump = asyncio.create_task(bridge.pump())
    meters.watch(bridge)
    try:
        async with serve_metrics(settings.metrics_host, settings.metrics_port, bridge.ready) as told:
            announce_ready(settings.ready_file, port=server.sockets[0].getsockname()[1], **told)
            _log.info("ready")
            await stop.wait()
            await bridge.drain()
    finally:
        server.close()
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump
        await bus.close(client)


def main() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-relay {VERSION}\n")
        return
    run("stream-relay", serve)


if __name__ == "__main__":
    main()
