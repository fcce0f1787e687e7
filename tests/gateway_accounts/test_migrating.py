"""Tables come into being and change under real data, whoever comes first; what is newer than a program stays."""

import asyncio
import datetime
import os
import stat
import sys
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from gateway.stage import tls_env
from gateway_accounts.conftest import gateway_settings
from sqlalchemy import inspect, text

from stream_core.certificates import ensure_certificates
from stream_core.errors import ConfigError
from stream_gateway.accounts import tables
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.faults import AccountsAway
from stream_gateway.accounts.migrating import HEAD, MIGRATIONS, migrate
from stream_gateway.accounts.opening import open_store
from stream_gateway.settings import GatewaySettings

OLD_KEY = """INSERT INTO keys (id, name, prefix, sha256, admin, whole, tiers, limits, created)
    VALUES ('key-old', 'old', 'sk-stream-abc', 'ff', false, true, '["local"]', '{"tokens_per_minute": 5}', 3)"""


async def test_an_older_revision_is_brought_up_with_its_data(place) -> None:
    """Rows of the first revision are there after the last one, and the tables are those that the program has."""
    database = Database.of(place.settings_of())
    assert await migrate(database, "0001") == ""
    async with database.writing() as connection:
        await connection.execute(text(OLD_KEY))
    await database.aclose()
    database, store = await open_store(place.settings_of())
    key = (await store.snapshot()).keys["key-old"]
    assert (key.rights.tiers, key.limits.tokens_per_minute, key.whole) == ({"local"}, 5, True)
    assert (key.replaced_by, key.valid_until) == ("", None)
    async with database.reading() as connection:
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), tables.metadata)
        )
    await database.aclose()
    assert difference == []


def test_the_newest_revision_is_the_one_that_the_program_asks_for() -> None:
    """A migration that is added without `HEAD` would never run."""
    assert ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)]).get_current_head() == HEAD


async def test_several_come_first(place, tmp_path) -> None:
    """Four programs that start at once on an empty database all succeed, and one of them has done the work."""
    env = {**os.environ, **place.env(), **tls_env("gateway", tmp_path, "gateway")}
    command = (sys.executable, "-m", "stream_gateway.accounts", "migrate")
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    programs = [await asyncio.create_subprocess_exec(*command, env=env, **pipes) for _ in range(4)]
    ends = await asyncio.gather(*(program.communicate() for program in programs))
    assert [program.returncode for program in programs] == [0] * 4, ends
    words = sorted(out.decode() for out, _ in ends)
    assert [line.count("were at nothing") for line in words] == [0, 0, 0, 1], words


async def test_a_newer_revision_stays(place, caplog) -> None:
    """In the middle of a rollout an older program goes on with newer tables."""
    database, _ = await open_store(place.settings_of())
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.execute(text("ALTER TABLE keys ADD COLUMN newer INTEGER"))
    await database.aclose()
    database, store = await open_store(place.settings_of())
    assert (await store.snapshot()).keys == {}
    async with database.reading() as connection:
        assert "newer" in await connection.run_sync(
            lambda sync: {column["name"] for column in inspect(sync).get_columns("keys")}
        )
    await database.aclose()
    assert "newer version" in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ann:secret@db/x", "store_password_file"),
        ("mysql://ann:secret@db/x", "sqlite:// or postgresql://"),
        ("postgresql://ann@db/x?sslmode=disable&password=secret", "TLS is always on"),
        ("postgresql://ann@db", "a host and a database"),
        ("sqlite://", "the path of a file"),
        ("nonsense of secret", "sqlite:// or postgresql://"),
    ],
)
def test_a_wrong_url_is_told(tmp_path, monkeypatch, url, words) -> None:
    """At the start, with the name of the variable; a password in it is not repeated."""
    for name, value in {**tls_env("gateway", tmp_path, "gateway"), "STREAM_GATEWAY__STORE_URL": url}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as caught:
        GatewaySettings.read()
    assert "STREAM_GATEWAY__STORE_URL" in caught.value.message
    assert "secret" not in caught.value.message


async def test_the_way_to_the_server_is_sealed(postgres, tmp_path) -> None:
    """With an authority's file TLS is used and the server's certificate checked; another authority's is refused."""
    url = await postgres.create(f"tls{time.time_ns()}")
    ensure_certificates(tmp_path / "other", ["postgres"], now=datetime.datetime.now(datetime.UTC))
    given = {"store_url": url, "store_password_file": postgres.password_file}
    database = Database.of(gateway_settings(tmp_path, **given, store_ca_file=postgres.ca_file))
    async with database.reading() as connection:
        used = await connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        assert used.scalar() is True
    await database.aclose()
    database = Database.of(gateway_settings(tmp_path, **given, store_ca_file=tmp_path / "other" / "ca.pem"))
    with pytest.raises(AccountsAway, match="certificate"):
        async with database.reading():
            pass
    await database.aclose()
    away = gateway_settings(tmp_path, **given, store_ca_file=tmp_path / "absent")
    with pytest.raises(ConfigError, match="absent"):
        Database.of(away)


async def test_the_file_is_its_owners(tmp_path) -> None:
    """SQLite's file and its companions can be read by their owner alone."""
    database, store = await open_store(gateway_settings(tmp_path, state_dir=tmp_path / "state"))
    await store.revision()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    await database.aclose()
    assert "accounts.sqlite" in modes
    assert set(modes.values()) == {0o600}
