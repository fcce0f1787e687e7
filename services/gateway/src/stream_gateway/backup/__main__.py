"""`python -m stream_gateway.backup save DIR`, `load DIR`: backup and restore of the store and of the broker's streams.

Runs with the environment of a gateway, as a user of the broker who may take snapshots. `stream backup` and `stream
restore` are this, with what `stream up` knows.
"""

import argparse
import asyncio
import sys
from pathlib import Path

from stream_core.errors import StreamError
from stream_gateway.backup.loading import load
from stream_gateway.backup.manifest import NOT_INSIDE
from stream_gateway.backup.saving import save
from stream_gateway.settings import GatewaySettings


async def _save(folder: Path) -> list[str]:
    manifest = await save(GatewaySettings.read(), folder)
    size = sum(file.bytes for file in manifest.files)
    messages = sum(stream.state.get("messages", 0) for stream in manifest.streams)
    parts = f"{len(manifest.streams)} streams with {messages:,} messages"
    store = f"and the store ({manifest.store})" if manifest.store else "no store"
    return [f"{folder}: {parts}, {store}, {size:,} bytes", NOT_INSIDE]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m stream_gateway.backup", description="Save or restore the state.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("save", "take a backup while everything runs"), ("load", "restore one, with gateways off")):
        command = commands.add_parser(name, help=words)
        command.add_argument("folder", type=Path, metavar="DIR")
        if name == "load":
            command.add_argument("--replace", action="store_true", help="delete what is there")
            command.add_argument("--replicas", type=int, help="nodes that keep a copy; else as many as before")
    told = parser.parse_args()
    try:
        if told.command == "save":
            done = asyncio.run(_save(told.folder.absolute()))
        else:
            settings = GatewaySettings.read()
            done = asyncio.run(load(settings, told.folder, replace=told.replace, replicas=told.replicas))
    except StreamError as error:
        sys.exit(f"stream: {f'{error.param}: ' if error.param else ''}{error.message}")
    sys.stdout.write("".join(f"{line}\n" for line in done))


if __name__ == "__main__":
    main()
