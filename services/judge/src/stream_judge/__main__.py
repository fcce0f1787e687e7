"""`python -m stream_judge`: serve `Judge.Score` until SIGTERM or SIGINT."""

import asyncio
import logging
import sys
from pathlib import Path

from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.lifecycle import announce_ready, run
from stream_core.rpc import judge_pb2_grpc
from stream_core.settings import read_deployment
from stream_core.telemetry import configure_logs
from stream_judge import VERSION
from stream_judge.classify import Classifier, FeatureBackend
from stream_judge.curves import HIGHEST, LOWEST
from stream_judge.query import Limits
from stream_judge.server import JudgeServicer
from stream_judge.settings import JudgeSettings
from stream_judge.weights import Weights, parse

_log = logging.getLogger("stream_judge")
_COMMITTED = Path(__file__).with_name("weights.json")


def read_weights(path: Path | None) -> Weights:
    """Read a weights file; None takes the committed one.

    Raises:
        ConfigError: not readable, or not weights for these features.
    """
    path = path or _COMMITTED
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", param="weights_file") from error
    return parse(text, source=str(path))


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop.

    Raises:
        ConfigError: a setting is wrong, or the address can't be bound.
    """
    settings = JudgeSettings.read()
    configure_logs("judge", settings.log_level)
    good_enough = settings.good_enough
    if good_enough is None:
        good_enough = min(HIGHEST, max(LOWEST, read_deployment().policy.good_enough))
    backend = FeatureBackend(
        read_weights(settings.weights_file), good_enough=good_enough, known=settings.tier_positions
    )
    servicer = JudgeServicer(
        Classifier(backend, cache_entries=settings.cache_entries), Limits(bytes=settings.max_request_bytes)
    )
    async with serve_grpc(
        settings.listen,
        settings.tls,
        lambda server: judge_pb2_grpc.add_JudgeServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]  # generated
        grace_s=settings.drain_s,
    ) as port:
        announce_ready(settings.ready_file, port=port)
        _log.info("ready", extra={"port": port, "version": backend.version})
        await stop.wait()


def main() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-judge {VERSION}\n")
        return
    run("stream-judge", serve)


if __name__ == "__main__":
    main()
