"""`python -m stream_summarizer`: serve until SIGTERM or SIGINT."""

import asyncio
import logging
import sys
from datetime import datetime

import grpc.aio

from stream_core.grpc_server import serve_grpc
from stream_core.lifecycle import announce_ready, run
from stream_core.rpc.summarizer_pb2_grpc import add_SummarizerServicer_to_server
from stream_core.settings import read_deployment
from stream_core.telemetry import configure_logs
from stream_summarizer import __version__
from stream_summarizer.backend import make_backend
from stream_summarizer.server import Summarizer
from stream_summarizer.settings import SummarizerSettings
from stream_summarizer.tokens import Counters

log = logging.getLogger(__name__)


async def serve(stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises:
        ConfigError: a setting or the deployment file is wrong.
    """
    settings = SummarizerSettings.read()
    configure_logs("summarizer", settings.log_level)
    deployment = read_deployment()
    counters = Counters(deployment, settings.image_tokens, lambda: datetime.now().astimezone())
    backend, reason = make_backend(settings, deployment)
    summarizer = Summarizer(settings, counters, backend, reason)

    def register(server: grpc.aio.Server) -> None:
        add_SummarizerServicer_to_server(summarizer, server)  # type: ignore[no-untyped-call]  # generated code

    try:
        async with serve_grpc(settings.listen, settings.tls, register) as port:
            announce_ready(settings.ready_file, port=port)
            log.info("serving", extra={"port": port, "model": backend.model if backend else ""})
            if backend is not None:
                await backend.open()
            await stop.wait()
    finally:
        summarizer.close()
        if backend is not None:
            await backend.close()


def main() -> None:
    """Run the summarizer as a program."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"stream-summarizer {__version__}\n")
        return
    run("stream-summarizer", serve)


if __name__ == "__main__":
    main()
