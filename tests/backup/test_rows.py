"""The store's rows, out of one database and into another of either kind; of older revisions, never of newer ones."""

import asyncio
import time
from pathlib import Path

import pytest
from gateway_accounts.conftest import gateway_settings
from gateway_accounts.test_migrating import OLD_KEY
from sqlalchemy import insert, select, text

from stream_core.cancellation import end
from stream_gateway.accounts import tables
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import HEAD, current, migrate
from stream_gateway.accounts.opening import open_store
from stream_gateway.accounts.records import Key, User
from stream_gateway.accounts.store import Store
from stream_gateway.backup import rows
from stream_gateway.backup.manifest import Unfit


@pytest.fixture(params=["sqlite", "postgresql"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> list[Database]:
    """A database to read from, and one of the other kind to write to."""
    server = request.getfixturevalue("postgres")
    url = await server.create(f"rows{time.time_ns()}")
    places = [{"state_dir": tmp_path / "state"}, {"store_url": url, "store_password_file": server.password_file}]
    places = places if request.param == "sqlite" else places[::-1]
    found = [Database.of(gateway_settings(tmp_path, **place)) for place in places]
    return [database for database in found if database is not None]


async def test_rows_go_from_one_kind_to_the_other(pair: list[Database], tmp_path: Path) -> None:
    """Every value is there as it was, nothing of what was there before, and tables of others stay."""
    source, target = pair
    await migrate(source)
    user = {"id": "user-1", "name": 'Ann "é" \\ 😀', "email": "", "disabled": False, "admin": True, "tiers": ["a"]}
    user |= {"limits": {"tokens_per_month": 5, "dollars_per_month": 0.5}, "told_groups": [], "created": 1 << 40}
    async with source.writing() as connection:
        await connection.execute(insert(tables.users), [user])
    assert await rows.filled(source) == "users"
    assert await rows.dump(source, tmp_path) == HEAD
    await migrate(target)
    assert await rows.filled(target) == ""
    async with target.writing() as connection:
        await connection.execute(insert(tables.groups), [{"id": "g", "name": "gone", "created": 1}])
        await connection.execute(text("CREATE TABLE theirs (number INTEGER)"))
    await rows.load(target, tmp_path, HEAD)
    async with source.reading() as left, target.reading() as right:
        for table in tables.metadata.sorted_tables:
            before = (await left.execute(select(table))).mappings().all()
            after = (await right.execute(select(table))).mappings().all()
            assert [dict(row) for row in before] == [dict(row) for row in after], table.name
        nothing = await right.scalar(text("SELECT count(*) FROM users WHERE models IS NULL AND tiers IS NOT NULL"))
        assert nothing == 1
        assert await right.scalar(text("SELECT count(*) FROM theirs")) == 0
    for database in pair:
        await database.aclose()


async def test_an_older_revision_is_migrated_forward(pair: list[Database], tmp_path: Path) -> None:
    """A backup of the first revision is restored, and its key is one of the newest."""
    source, target = pair
    await migrate(source, "0001")
    async with source.writing() as connection:
        await connection.execute(text(OLD_KEY))
    assert await rows.dump(source, tmp_path) == "0001"
    rows.check_revision("0001")
    await rows.load(target, tmp_path, "0001")
    async with target.reading() as connection:
        assert await connection.run_sync(current) == HEAD
        key = (await connection.execute(select(tables.keys))).mappings().one()
    assert (key["id"], key["tiers"], key["whole"], key["replaced_by"]) == ("key-old", ["local"], True, None)
    for database in pair:
        await database.aclose()


async def test_a_newer_revision_is_refused(tmp_path: Path) -> None:
    """Both ways: a backup of a newer program, and a store that one has changed."""
    with pytest.raises(Unfit, match=f"of revision 9999, this program knows up to {HEAD}"):
        rows.check_revision("9999")
    database, _ = await open_store(gateway_settings(tmp_path, state_dir=tmp_path / "state"))
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unfit, match="9999"):
        await rows.dump(database, tmp_path)
    await database.aclose()


async def test_the_dump_sees_one_state(pair: list[Database], tmp_path: Path) -> None:
    """Keys come with the users that they are of, while both are made all the time."""
    source, target = pair
    await migrate(source)
    store, begun = Store(source), asyncio.Event()

    async def write() -> None:
        for number in range(10_000):
            async with store.change() as change:
                await change.add(User(id=f"user-{number}", name="", created=1))
                await change.add(Key(id=f"key-{number}", name="", prefix="", sha256=str(number), user=f"user-{number}"))
            if number == 5:
                begun.set()

    writing = asyncio.create_task(write())
    await begun.wait()
    await rows.dump(source, tmp_path)
    assert not writing.done(), "the dump was taken after all had been written, or nothing could be"
    await end(writing)
    await rows.load(target, tmp_path, HEAD)
    found = await Store(target).snapshot()
    assert len(found.keys) > 5
    assert {key.user for key in found.keys.values()} == found.users.keys()
    for database in pair:
        await database.aclose()
