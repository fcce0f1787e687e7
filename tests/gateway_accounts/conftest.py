"""What the tests of the accounts share: stores of both kinds, and a directory that reads one."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gateway_accounts.postgres import Postgres, binary, run_postgres

from stream_gateway.accounts.directory import Directory
from stream_gateway.accounts.opening import open_store
from stream_gateway.settings import GatewaySettings

CLASSES = ("public", "internal", "restricted")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server."""
    if binary("postgres") is None or binary("initdb") is None:
        pytest.skip("PostgreSQL is not installed: no `postgres` and `initdb` on PATH or in /usr/lib/postgresql")
    with run_postgres() as server:
        yield server


def gateway_settings(folder: Path, **fields: Any) -> GatewaySettings:
    """Settings of a gateway that is not started."""
    return GatewaySettings(tls={name: folder / name for name in ("ca", "certificate", "key")}, **fields)


@dataclass
class Place:
    """Where accounts lie."""

    kind: str
    settings: dict[str, Any]
    folder: Path

    def settings_of(self, **fields: Any) -> GatewaySettings:
        """Settings of a gateway that keeps its accounts there."""
        return gateway_settings(self.folder, store_look_s=0.05, **self.settings, **fields)

    def env(self) -> dict[str, str]:
        """The same as environment."""
        return {f"STREAM_GATEWAY__{name.upper()}": str(value) for name, value in self.settings.items()}


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return Place("sqlite", {"state_dir": tmp_path / "state"}, tmp_path)
    server: Postgres = request.getfixturevalue("postgres")
    url = await server.create(f"accounts{next(_numbers)}")
    return Place("postgresql", {"store_url": url, "store_password_file": server.password_file}, tmp_path)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Any]:
    """An open store."""
    database, opened = await open_store(place.settings_of())
    yield opened
    await database.aclose()


@contextlib.asynccontextmanager
async def following(place: Place, **fields: Any) -> AsyncIterator[Directory]:
    """A directory that keeps up with a store, until the block ends."""
    directory = Directory(place.settings_of(), lambda: CLASSES, **fields)
    task = asyncio.create_task(directory.follow())
    try:
        yield directory
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
