"""`python -m stream_gateway.accounts migrate`: bring the accounts' tables to their newest form.

Runs with the environment of a gateway. A gateway does the same at its start; this is for deployments where only a job
of its own may change tables.
"""

import argparse
import asyncio
import sys

from stream_core.errors import ConfigError, StreamError
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import HEAD, migrate
from stream_gateway.settings import GatewaySettings


async def _migrate() -> str:
    database = Database.of(GatewaySettings.read())
    if database is None:
        raise ConfigError("neither it nor state_dir is set", param="store_url")
    try:
        return await migrate(database)
    finally:
        await database.aclose()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m stream_gateway.accounts", description="Look after the accounts.")
    parser.add_argument("command", choices=["migrate"])
    parser.parse_args()
    try:
        before = asyncio.run(_migrate())
    except StreamError as error:
        sys.exit(f"stream: {f'{error.param}: ' if error.param else ''}{error.message}")
    sys.stdout.write(f"the accounts' tables were at {before or 'nothing'} and are at {HEAD}\n")


if __name__ == "__main__":
    main()
