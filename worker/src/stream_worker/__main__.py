"""`python -m stream_worker`: reads its job from standard input, serves until the lease ends or SIGTERM."""

import asyncio
import sys

import msgspec

from stream_core.errors import ConfigError
from stream_core.ids import from_hex
from stream_core.lifecycle import run
from stream_core.telemetry import configure_logs
from stream_core.wire.job import PilotJob
from stream_worker import VERSION
from stream_worker.settings import WorkerSettings
from stream_worker.worker import Worker


def read_job(data: bytes) -> PilotJob:
    """Read the job.

    Raises:
        ConfigError: not a job; the message names the field and shows nothing of the content.
    """
    try:
        job = msgspec.json.decode(data, type=PilotJob)
        from_hex(job.lease)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"the job on standard input: {error}", param="job") from error
    return job


async def main(stop: asyncio.Event) -> None:
    """Read settings and job, then serve."""
    settings = WorkerSettings.read()
    configure_logs("worker", settings.log_level)
    job = read_job(await asyncio.to_thread(sys.stdin.buffer.read))
    await Worker(job, settings).serve(stop)


def entry() -> None:
    """Entry point."""
    if "--version" in sys.argv[1:]:
        sys.stdout.write(f"stream-worker {VERSION}\n")
        return
    run("stream-worker", main)


if __name__ == "__main__":
    entry()
