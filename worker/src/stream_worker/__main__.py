"""`stream-worker`, `python -m stream_worker`: reads its job, serves until the lease ends or SIGTERM.

`stream-worker doctor` looks instead whether a worker can run on this node.

The job comes on standard input, or in a private file, `--job FILE`, which is deleted at once: it holds a secret.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from stream_core import tracing
from stream_core.errors import ConfigError
from stream_core.ids import from_hex
from stream_core.lifecycle import run
from stream_core.telemetry import configure_logs
from stream_core.wire.job import PilotJob
from stream_worker import VERSION
from stream_worker.settings import WorkerSettings
from stream_worker.worker import Worker


def take_job_file(path: Path) -> bytes:
    """Read the file that holds the job, and delete it.

    Raises:
        ConfigError: it can't be read, or can't be deleted: then its secret would stay.
    """
    try:
        data = path.read_bytes()
        path.unlink()
    except OSError as error:
        raise ConfigError(f"the job file {path}: {error.strerror}", param="job") from error
    return data


def read_job(data: bytes, source: str = "on standard input") -> PilotJob:
    """Read the job.

    Args:
        data: JSON.
        source: where it came from, for the message.

    Raises:
        ConfigError: not a job; the message names the field and shows nothing of the content.
    """
    try:
        job = msgspec.json.decode(data, type=PilotJob)
        from_hex(job.lease)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"the job {source}: {error}", param="job") from error
    return job


async def main(stop: asyncio.Event) -> None:
    """Read settings and job, then serve."""
    settings = WorkerSettings.read()
    configure_logs("worker", settings.log_level)
    tracing.configure("worker", settings.traces, required=False)
    match sys.argv[1:]:
        case []:
            job = read_job(await asyncio.to_thread(sys.stdin.buffer.read))
        case ["--job", file]:
            job = read_job(await asyncio.to_thread(take_job_file, Path(file)), f"in {file}")
        case arguments:
            raise ConfigError(
                f"{' '.join(arguments)}: it takes `--job FILE`, `doctor`, `--version`, or nothing", param="arguments"
            )
    await Worker(job, settings).serve(stop)


def entry() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-worker {VERSION}\n")
        return
    if sys.argv[1:2] == ["doctor"]:
        from stream_worker.doctor import doctor  # noqa: PLC0415  (a worker that serves does not need it)

        sys.exit(doctor(sys.argv[2:]))
    run("stream-worker", main)


if __name__ == "__main__":
    entry()
