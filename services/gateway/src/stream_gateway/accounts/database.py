"""Where the accounts lie: a file of SQLite, or a PostgreSQL server over TLS."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stream_core.errors import ConfigError
from stream_core.settings import read_secret
from stream_gateway.accounts.faults import AccountsAway
from stream_gateway.settings import GatewaySettings

SQLITE_NAME: Final = "accounts.sqlite"
_PATIENCE_S: Final = 10.0
_LOCK_PATIENCE_S: Final = 5.0
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_IMMEDIATE: Final = "stream_immediate"
"""Option of a connection whose transactions write: how long they wait for their turn, in seconds."""
_BROKEN: Final = (IntegrityError, ProgrammingError, DataError)
"""Faults of what was asked, not of the database."""


class Database:
    """An engine with the habits that accounts need.

    Args:
        url: of SQLAlchemy, without driver.
        connect: arguments of the driver.
    """

    def __init__(self, url: URL, connect: dict[str, Any]) -> None:
        self.sqlite = url.get_backend_name() == "sqlite"
        pool = {"pool_size": 2, "max_overflow": 2, "pool_timeout": _PATIENCE_S, "pool_pre_ping": not self.sqlite}
        self._engine = create_async_engine(url, connect_args=connect, hide_parameters=True, **pool)
        if self.sqlite:
            _mend_sqlite(self._engine)

    @classmethod
    def of(cls, settings: GatewaySettings) -> "Database | None":
        """Read where it is; None when there is to be none.

        Raises:
            ConfigError: naming the setting.
        """
        if settings.store_url:
            return cls(*_parsed(settings))
        if settings.state_dir is None:
            return None
        return cls(*_file(settings.state_dir / SQLITE_NAME))

    @contextlib.asynccontextmanager
    async def reading(self, patience_s: float = _PATIENCE_S) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that sees one state of everything.

        Args:
            patience_s: how long all of it may take.

        Raises:
            AccountsAway: it does not answer.
        """
        async with _told(patience_s), self._engine.connect() as connection:
            if not self.sqlite:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self, patience_s: float = _PATIENCE_S) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that is committed at the block's end; on SQLite it waits for its turn first.

        Args:
            patience_s: how long all of it may take.

        Raises:
            AccountsAway: it does not answer.
        """
        async with _told(patience_s), self._engine.connect() as connection:
            await connection.execution_options(**{_IMMEDIATE: patience_s})
            async with connection.begin():
                yield connection

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextlib.asynccontextmanager
async def _told(patience_s: float) -> AsyncIterator[None]:
    """Tell a database that is away from a question that was wrong."""
    try:
        async with asyncio.timeout(patience_s):
            yield
    except _BROKEN:
        raise
    except (DBAPIError, PoolTimeout, OSError) as error:  # TimeoutError is an OSError
        # The driver's own words only: a statement has names in it.
        cause = error.orig if isinstance(error, DBAPIError) else error
        words = str(cause).partition("\n")[0][:200] or type(cause).__name__
        raise AccountsAway(f"the store of accounts does not answer: {words}") from error


def _parsed(settings: GatewaySettings) -> tuple[URL, dict[str, Any]]:
    try:
        url = make_url(settings.store_url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("not the URL of a database", param="store_url") from error
    return _server(url, settings) if url.get_backend_name() == "postgresql" else _file(Path(url.database or ""))


def _file(path: Path) -> tuple[URL, dict[str, Any]]:
    """Make the file, for its owner alone: its companions inherit that from it.

    Raises:
        ConfigError: it can't be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", param="store_url") from error
    return URL.create("sqlite+aiosqlite", database=str(path)), {"timeout": _LOCK_PATIENCE_S}


def _server(url: URL, settings: GatewaySettings) -> tuple[URL, dict[str, Any]]:
    connect: dict[str, Any] = {"timeout": _PATIENCE_S / 2, "command_timeout": _PATIENCE_S}
    if settings.store_password_file is not None:
        connect["password"] = read_secret(settings.store_password_file)
    # As for the broker: on this machine without TLS, across a network never.
    local = url.host in _LOCAL and settings.store_ca_file is None
    try:
        connect["ssl"] = False if local else ssl.create_default_context(cafile=settings.store_ca_file)
    except OSError as error:
        raise ConfigError(f"{settings.store_ca_file}: {error}", param="store_ca_file") from error
    return url.set(drivername="postgresql+asyncpg"), connect


def _mend_sqlite(engine: AsyncEngine) -> None:
    """Let SQLite begin transactions when told to, as SQLAlchemy's manual has it for real isolation."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        # Setting the mode wants the file for itself, also where it is set already.
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone() != ("wal",):
            cursor.execute("PRAGMA journal_mode = WAL")
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        patience_s = connection.get_execution_options().get(_IMMEDIATE)
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {int((patience_s or _LOCK_PATIENCE_S) * 1000)}")
        connection.exec_driver_sql("BEGIN" if patience_s is None else "BEGIN IMMEDIATE")


STORE_ERRORS: Final = (AccountsAway, ConfigError, SQLAlchemyError)
"""Whatever keeps the store from being opened or read; a file that a setting names may come later."""
