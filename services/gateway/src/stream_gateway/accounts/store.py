"""The accounts in the database: read whole, changed row by row, each change counted."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar

from sqlalchemy import Select, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_gateway.accounts import tables
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.faults import AccountExists, NoSuchAccount
from stream_gateway.accounts.records import Group, Key, Project, Record, User
from stream_gateway.accounts.rows import Row, group_of, key_of, project_of, row_of, told_row, user_of
from stream_gateway.accounts.snapshot import Snapshot, indexed

_SLICE: Final = 500
"""Rows that are read at a time, so that the streams of others go on in between."""
_SNAPSHOT_PATIENCE_S: Final = 60.0
_R = TypeVar("_R", bound=Record)
_KINDS: Final[Mapping[type, tuple[Table, Callable[[Row], Record]]]] = {
    User: (tables.users, user_of),
    Group: (tables.groups, group_of),
    Project: (tables.projects, project_of),
    Key: (tables.keys, key_of),
}


class Store:
    """All accounts.

    Args:
        database: with the newest tables.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def revision(self) -> int:
        """Tell the number of the last change."""
        async with self._database.reading() as connection:
            return await _number(connection)

    async def snapshot(self) -> Snapshot:
        """Read all."""
        async with self._database.reading(_SNAPSHOT_PATIENCE_S) as connection:
            groups_of, members_of = defaultdict(list), defaultdict(list)
            async for row in _rows(connection, select(tables.memberships)):
                groups_of[row["user_id"]].append(row["group_id"])
            async for row in _rows(connection, select(tables.project_members)):
                members_of[row["project_id"]].append(row["user_id"])
            return indexed(
                await _number(connection),
                [user_of(row, groups_of[row["id"]]) async for row in _rows(connection, select(tables.users))],
                [group_of(row) async for row in _rows(connection, select(tables.groups))],
                [project_of(row, members_of[row["id"]]) async for row in _rows(connection, select(tables.projects))],
                [key_of(row) async for row in _rows(connection, select(tables.keys))],
            )

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncIterator["Change"]:
        """Open a transaction for changes that count as one.

        Raises:
            AccountExists: a name is taken.
        """
        try:
            async with self._database.writing() as connection:
                # First of all, so that changes wait for each other here and are numbered in their order.
                await connection.execute(update(tables.revision).values(number=tables.revision.c.number + 1))
                yield Change(connection)
        except IntegrityError as error:
            raise AccountExists("another one has this name, or what it refers to is gone") from error


class Change:
    """What can be changed, within one transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, record: Record) -> None:
        """Add a record; an `IntegrityError` tells that it is there, or refers to what is not."""
        await self._connection.execute(insert(_table(record)).values(row_of(record)))

    async def rewrite(self, record: Record) -> None:
        """Write a record over the one of its id.

        Raises:
            NoSuchAccount: it is gone.
        """
        table = _table(record)
        values = {name: value for name, value in row_of(record).items() if name != "id"}
        done = await self._connection.execute(update(table).where(table.c.id == record.id).values(values))
        if not done.rowcount:
            raise NoSuchAccount(f"there is no {type(record).__name__.lower()} {record.id!r} any more")

    async def drop_group(self, id_: str) -> None:
        """Delete a group; its users stay."""
        await self._connection.execute(delete(tables.groups).where(tables.groups.c.id == id_))

    async def join(self, of: Group | Project, user: str) -> None:
        """Put a user into a group or project; again changes nothing."""
        if not await self.is_member(of, user):
            table, column = _members(of)
            await self._connection.execute(insert(table).values({column: of.id, "user_id": user}))

    async def leave(self, of: Group | Project, user: str) -> None:
        """Take a user out of a group or project; again changes nothing."""
        table, column = _members(of)
        await self._connection.execute(delete(table).where(table.c[column] == of.id, table.c.user_id == user))

    async def find(self, kind: type[_R], id_: str) -> _R:
        """Read one record as it is now, without members; changes of others wait until this one ends.

        Raises:
            NoSuchAccount: there is none.
        """
        table, read = _KINDS[kind]
        row = (await self._connection.execute(select(table).where(table.c.id == id_))).mappings().first()
        if row is None:
            raise NoSuchAccount(f"there is no {kind.__name__.lower()} {id_[:80]!r}")
        found = read(dict(row))
        assert isinstance(found, kind)  # noqa: S101  (the table says so)
        return found

    async def is_member(self, of: Group | Project, user: str) -> bool:
        """Tell whether a user is in a group or project."""
        table, column = _members(of)
        at = (table.c[column] == of.id) & (table.c.user_id == user)
        return (await self._connection.execute(select(table).where(at))).first() is not None

    async def see(self, user: User) -> None:
        """Note what a token told of a user, who may be new."""
        table = tables.users
        known = (await self._connection.execute(select(table.c.id).where(table.c.id == user.id))).first()
        if known is None:
            await self.add(user)
        else:
            values = {"name": user.name, "email": user.email, **told_row(user)}
            await self._connection.execute(update(table).where(table.c.id == user.id).values(values))


def _table(record: Record) -> Table:
    return _KINDS[type(record)][0]


def _members(of: Group | Project) -> tuple[Table, str]:
    return (tables.memberships, "group_id") if isinstance(of, Group) else (tables.project_members, "project_id")


async def _number(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(tables.revision.c.number))).scalar_one())


async def _rows(connection: AsyncConnection, asked: Select[Any]) -> AsyncIterator[Mapping[str, Any]]:
    async with connection.stream(asked.execution_options(yield_per=_SLICE)) as found:
        async for row in found.mappings():
            yield row
