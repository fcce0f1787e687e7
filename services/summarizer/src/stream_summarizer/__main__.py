"""`python -m stream_summarizer`: serve until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import grpc.aio

from stream_core import tracing
from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.health import serve_metrics
from stream_core.lifecycle import announce_ready, run
from stream_core.rpc.summarizer_pb2_grpc import add_SummarizerServicer_to_server
from stream_core.settings import read_deployment, read_secret
from stream_core.telemetry import Once, configure_logs
from stream_summarizer import __version__
from stream_summarizer.backend import Backend, make_backend
from stream_summarizer.server import Summarizer
from stream_summarizer.settings import SummarizerSettings
from stream_summarizer.shelf import Store
from stream_summarizer.tokens import Counters

log = logging.getLogger(__name__)
_KEY_BYTES: Final = 32


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: a setting or the deployment file is wrong.
    """
    settings = SummarizerSettings.read()
    configure_logs("summarizer", settings.log_level)
    tracing.configure("summarizer", settings.traces)
    deployment = read_deployment()
    counters = Counters(deployment, settings.image_tokens, lambda: datetime.now().astimezone())
    backend, reason = make_backend(settings, deployment)
    key = store_key(settings)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(_open_store(settings)) if key else None
        summarizer = Summarizer(settings, counters, backend, reason, store, key, deployment.policy.classes)
        await _serve(stop, settings, summarizer, backend)


async def _serve(
    stop: asyncio.Event, settings: SummarizerSettings, summarizer: Summarizer, backend: Backend | None
) -> None:

    def register(server: grpc.aio.Server) -> None:
        add_SummarizerServicer_to_server(summarizer, server)  # type: ignore[no-untyped-call]  # generated code

    try:
        async with (
            serve_metrics(settings.metrics_host, settings.metrics_port, lambda: None) as told,
            serve_grpc(settings.listen, settings.tls, register) as port,
        ):
            announce_ready(settings.ready_file, port=port, **told)
            log.info("serving", extra={"port": port, "model": backend.model if backend else ""})
            if backend is not None:
                await backend.open()
            await stop.wait()
    finally:
        await summarizer.aclose()
        if backend is not None:
            await backend.close()


def store_key(settings: SummarizerSettings) -> bytes:
    """Read the key that seals kept summaries; empty when there is none.

    Raises:
        ConfigError: not readable, or not 64 hex digits.
    """
    if settings.store_key_file is None:
        return b""
    try:
        key = bytes.fromhex(read_secret(settings.store_key_file))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"{settings.store_key_file} must hold {2 * _KEY_BYTES} hex digits", param="store_key_file")
    return key


@contextlib.asynccontextmanager
async def _open_store(settings: SummarizerSettings) -> "AsyncIterator[Store]":
    """Connect to the broker and find the bucket, until the block ends."""
    from stream_core import bus  # noqa: PLC0415  (without a store the broker's client is not needed)
    from stream_summarizer.bucket import Bucket  # noqa: PLC0415

    client = await bus.connect(settings.nats, name="summarizer")
    try:
        yield await Bucket.open(
            client,
            settings.store_bucket,
            max_bytes=settings.store_bytes,
            ttl_s=settings.store_ttl_s,
            replicas=settings.store_replicas,
            faults=Once(log),
        )
    finally:
        await bus.close(client)


def main() -> None:
    """Run the summarizer as a program."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"stream-summarizer {__version__}\n")
        return
    run("stream-summarizer", serve)


if __name__ == "__main__":
    main()
