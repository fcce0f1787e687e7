"""The store's rows as lines of JSON: from either kind of database, into either kind.

Read in one transaction that sees one state of everything, with the columns that the tables have, whatever their
revision. Written into new tables of that same revision, which are then brought up to date as a gateway does it, so a
restore is a migration like any other. Columns are numbers, texts, booleans and JSON, nothing else.
"""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
from sqlalchemy import JSON, Connection, MetaData, func, inspect, select, text

from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import current, known, upgrade
from stream_gateway.backup.manifest import STORE, Unfit
from stream_gateway.ledger.table import ledger

_PATIENCE_S: Final = 24 * 3600.0
_AT_ONCE: Final = 500
_VERSION: Final = "alembic_version"
_COUNTER: Final = "account_revision"
"""A row that is in empty tables, too."""


async def dump(database: Database, folder: Path) -> str:
    """Write all rows to the backup's file.

    Returns:
        The tables' revision.

    Raises:
        AccountsAway: the database does not answer.
        Unfit: it has tables that this program does not know.
    """
    async with database.reading(_PATIENCE_S) as connection:
        revision = await connection.run_sync(current)
        if revision and revision not in known():
            raise Unfit(f"the store's tables are of revision {revision}, this program knows up to {known()[-1]}")
        tables = (await connection.run_sync(_reflected)).sorted_tables
        with _create(folder / STORE) as file:
            for table in tables:
                order = [*table.primary_key.columns]
                wanted = select(table).order_by(*order).execution_options(yield_per=_AT_ONCE)
                async with connection.stream(wanted) as rows:
                    async for row in rows.mappings():
                        plain = {str(name): value for name, value in row.items()}
                        file.write(msgspec.json.encode([str(table.name), plain]).decode() + "\n")
    return revision


async def filled(database: Database) -> str:
    """Name a table that has rows; empty: none has."""
    async with database.reading() as connection:
        for table in (await connection.run_sync(_reflected)).sorted_tables:
            if table.name != _COUNTER and await connection.scalar(select(func.count()).select_from(table)):
                return table.name
    return ""


def check_revision(revision: str) -> None:
    """Refuse tables that a newer program made.

    Raises:
        Unfit: so it is.
    """
    if revision not in known():
        words = f"its tables are of revision {revision}, this program knows up to {known()[-1]}"
        raise Unfit(f"{words}: restore it with the version that took it, or a newer one", param="DIR")


async def load(database: Database, folder: Path, revision: str) -> int:
    """Make the tables anew with the backup's rows, in one transaction.

    Args:
        database: whose tables of ours are dropped.
        folder: of the backup.
        revision: of its tables.

    Returns:
        How many rows there are.

    Raises:
        AccountsAway: the database does not answer; it is as it was.
    """
    async with database.writing(_PATIENCE_S) as connection:
        return await connection.run_sync(_load, folder, revision)


def _load(connection: Connection, folder: Path, revision: str) -> int:
    _reflected(connection).drop_all(connection)
    if inspect(connection).has_table(_VERSION):
        connection.execute(text(f"DROP TABLE {_VERSION}"))
    upgrade(connection, revision)
    tables = _reflected(connection)
    connection.execute(tables.tables[_COUNTER].delete())
    count = 0
    for name, rows in _groups(folder / STORE):
        connection.execute(tables.tables[name].insert(), rows)
        count += len(rows)
    upgrade(connection, "head")
    return count


def _reflected(connection: Connection) -> MetaData:
    """Read the shapes of our tables; a database may have others' as well."""
    there = inspect(connection).get_table_names()
    metadata = MetaData()
    metadata.reflect(connection, only=[name for name in ledger.metadata.tables if name in there])
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)  # as `tables` has it: nothing is nothing, not JSON's null
    return metadata


def _groups(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    name, rows = "", list[dict[str, Any]]()
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            table, row = msgspec.json.decode(line, type=tuple[str, dict[str, Any]])
            if rows and (table != name or len(rows) >= _AT_ONCE):
                yield name, rows
                rows = []
            name = table
            rows.append(row)
    if rows:
        yield name, rows


def _create(path: Path) -> TextIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    return gzip.open(path, "wt", encoding="utf-8", compresslevel=3)
