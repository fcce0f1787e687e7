"""`python -m stream_gateway.thumbs FILE`: write all thumbs of all keys to a private file, for `stream judge calibrate`.

Runs with the environment of a gateway (in its container, say): it needs the broker and the batch key, and nobody else
has those.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import msgspec

from stream_core import bus
from stream_core.errors import ConfigError, StreamError
from stream_core.files import write_private
from stream_core.telemetry import Once
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.service import SETTING, read_key
from stream_gateway.batches.thumbs import Thumbs
from stream_gateway.feedback import RecentAnswers
from stream_gateway.settings import GatewaySettings


async def export(path: Path) -> int:
    """Read and write.

    Returns:
        How many thumbs there were.

    Raises:
        StreamError: no batch key, no broker, or it has no such stream yet.
    """
    settings = GatewaySettings.read()
    if settings.batch_key_file is None:
        raise ConfigError(f"{SETTING} is not set: there is no feedback", param="batch_key_file")
    faults = Once(logging.getLogger(__name__))
    client = await bus.connect(settings.nats, name="gateway-thumbs")
    try:
        sealer = Sealer(read_key(settings.batch_key_file))
        thumbs = Thumbs(Journal(client), sealer, RecentAnswers(0), settings.feedback_ttl_s, faults)
        lines = [msgspec.json.encode(thumb) + b"\n" async for thumb in thumbs.read()]
    finally:
        await bus.close(client)
    write_private(path, b"".join(lines))
    return len(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m stream_gateway.thumbs", description="Write all feedback to FILE.")
    parser.add_argument("file", type=Path, metavar="FILE", help="JSONL: prompt, tier, good; made with mode 0600")
    path = parser.parse_args().file
    try:
        count = asyncio.run(export(path))
    except (StreamError, OSError) as error:
        sys.exit(f"stream: {error}")
    sys.stdout.write(f"{path}: {count:,} thumbs\n")


if __name__ == "__main__":
    main()
