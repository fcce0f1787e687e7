"""`python -m stream_judge`: serve `Judge.Score` until SIGTERM or SIGINT."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from stream_core import tracing
from stream_core.errors import ConfigError
from stream_core.grpc_server import serve_grpc
from stream_core.health import serve_metrics
from stream_core.lifecycle import announce_ready, run
from stream_core.rpc import judge_pb2_grpc
from stream_core.settings import read_deployment
from stream_core.telemetry import configure_logs
from stream_judge import VERSION
from stream_judge.calibration import NONE, Calibration, parse_calibration
from stream_judge.classify import Backend, Classifier, LearnedBackend
from stream_judge.query import Limits
from stream_judge.server import JudgeServicer
from stream_judge.settings import JudgeSettings
from stream_judge.weights import Weights, parse

_log = logging.getLogger("stream_judge")
COMMITTED = Path(__file__).with_name("weights.json")
_PROMPT = Path(__file__).parent / "prompts" / "grade.txt"


def read_weights(path: Path | None) -> Weights:
    """Read a weights file; None takes the committed one.

    Raises:
        ConfigError: not readable, or not weights for these features.
    """
    path = path or COMMITTED
    return parse(_read(path, "weights_file"), source=str(path))


def read_calibration(path: Path | None) -> Calibration:
    """Read a calibration file; None calibrates nothing.

    Raises:
        ConfigError: not readable, or not a calibration.
    """
    return NONE if path is None else parse_calibration(_read(path, "calibration_file"), source=str(path))


def _read(path: Path, param: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", param=param) from error


@contextlib.asynccontextmanager
async def open_backend(settings: JudgeSettings) -> AsyncIterator[Backend]:
    """Build the backend that the settings name, until the block ends.

    Raises:
        ConfigError: one of its files is missing or wrong.
    """
    learned = LearnedBackend(
        read_weights(settings.weights_file),
        known=settings.tier_positions,
        calibration=read_calibration(settings.calibration_file),
    )
    if settings.backend == "learned":
        yield learned
        return
    from stream_judge.llm import CascadeBackend, open_llm  # noqa: PLC0415  (an HTTP client that most never need)

    prompt = _read(settings.llm.prompt_file or _PROMPT, "llm.prompt_file")
    key = _read(settings.llm.api_key_file, "llm.api_key_file").strip() if settings.llm.api_key_file else ""
    policy = read_deployment().policy
    async with open_llm(settings.llm, learned, prompt=prompt, key=key, classes=policy.classes) as llm:
        if settings.backend == "llm":
            yield llm
            return
        good_enough = settings.good_enough
        if good_enough is None:
            good_enough = policy.good_enough
        yield CascadeBackend(learned, llm, good_enough=good_enough, band=settings.cascade_band)


async def serve(stop: asyncio.Event) -> None:
    """Startup, serve, drain, stop.

    Raises:
        ConfigError: a setting is wrong, or the address can't be bound.
    """
    settings = JudgeSettings.read()
    configure_logs("judge", settings.log_level)
    tracing.configure("judge", settings.traces)
    async with open_backend(settings) as backend:
        classifier = Classifier(backend, cache_entries=settings.cache_entries)
        servicer = JudgeServicer(classifier, Limits(bytes=settings.max_request_bytes))
        async with (
            serve_metrics(settings.metrics_host, settings.metrics_port, lambda: None) as told,
            serve_grpc(
                settings.listen,
                settings.tls,
                lambda server: judge_pb2_grpc.add_JudgeServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]  # generated
                grace_s=settings.drain_s,
            ) as port,
        ):
            announce_ready(settings.ready_file, port=port, **told)
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
