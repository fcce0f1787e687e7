"""Tables change under a gateway of before, which answers all the time and goes on over the newer ones."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, tier, until
from gateway_accounts.conftest import gateway_settings
from sqlalchemy import insert, text
from upgrade.release import Release, previous

from stream_core.api_keys import new_key
from stream_core.files import write_private
from stream_core.testing.broker import run_broker
from stream_core.testing.engine import scripted_engine
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import HEAD, current, migrate
from stream_gateway.accounts.tables import keys
from stream_gateway.ledger.table import ledger

pytestmark = pytest.mark.process
CLIENTS = 4
MOVED = "the accounts' tables were brought up to date"


@dataclass
class Rollout:
    """What is rolled out over what, and what its clients saw."""

    stage: Stage
    env: dict[str, str]
    older: Release
    database: Database
    key: str
    at: list[Gateway] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)
    """By gateway's port."""
    ids: dict[int, list[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def before(self) -> Iterator[Gateway]:
        """Run a gateway of before."""
        with self.stage.run({**self.env, "PYTHONPATH": self.older.pythonpath}) as gateway:
            yield gateway

    async def load(self) -> None:
        """Ask all gateways there are, in turn, until cancelled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._ask(session, number))

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        body = {"model": "local", "messages": [{"role": "user", "content": "hi"}], "script": {"tokens": 2}}
        headers = {"authorization": f"Bearer {self.key}"}
        while True:
            number += 1
            gateway = self.at[number % len(self.at)]
            try:
                async with session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
                    told = await answer.text()
                    if answer.status != 200:
                        self.failed.append(told)
                    self.ids.setdefault(gateway.port, []).append(answer.headers["x-request-id"])
            except aiohttp.ClientError as error:
                self.failed.append(repr(error))
            self.answered[gateway.port] += 1

    async def more(self) -> None:
        """Wait until each gateway has answered 20 more."""
        wanted = {gateway.port: self.answered[gateway.port] + 20 for gateway in self.at}
        await until(lambda: all(self.answered[port] >= count for port, count in wanted.items()))

    async def key_at(self, gateway: Gateway, key: str, status: int) -> None:
        """Wait until a gateway answers a key with this status."""
        headers = {"authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as session, asyncio.timeout(60):
            while True:
                async with session.get(f"{gateway.url}/v1/models") as answer:
                    if answer.status == status:
                        return
                await asyncio.sleep(0.05)

    async def admin(self, gateway: Gateway, path: str, **body: Any) -> Any:
        """Change something as an administrator."""
        async with (
            aiohttp.ClientSession(headers=gateway.headers("admin")) as session,
            session.post(f"{gateway.url}/admin/v1{path}", json=body or None) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json()


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The last gateway before the newest migration."""
    return previous(tmp_path_factory.mktemp("older"), "tables")


@pytest.fixture(params=["sqlite", "postgresql"])
async def rollout(request: pytest.FixtureRequest, tmp_path: Path, older: Release) -> AsyncIterator[Rollout]:
    """Tables of the oldest revision with a key in them, a broker, an engine; no gateway yet."""
    where: dict[str, Any] = {"state_dir": tmp_path / "state"}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = await server.create(f"upgrade{time.time_ns()}")
        where = {"store_url": url, "store_password_file": server.password_file}
    database = Database.of(gateway_settings(tmp_path, **where))
    assert database is not None
    await migrate(database, "0001")
    key, record = new_key("of before", now=time.time())
    columns = {"id": record.id, "name": "of before", "prefix": record.prefix, "sha256": record.sha256, "created": 1}
    async with database.writing() as connection:
        await connection.execute(insert(keys), [{**columns, "admin": False, "whole": False, "limits": {}}])
        await connection.execute(text("UPDATE account_revision SET number = number + 1"))
    with scripted_engine() as engine, run_broker() as broker:
        stage = Stage(tmp_path, {"tiers": [tier("local", engine)]})
        stage.add_key("admin", admin=True)
        write_private(tmp_path / "batch.key", secrets.token_hex(32).encode())
        env = {**stage.env(**where), "STREAM_GATEWAY__NATS__URL": broker, "STREAM_GATEWAY__STORE_LOOK_S": "0.1"}
        env["STREAM_GATEWAY__BATCH_KEY_FILE"] = str(tmp_path / "batch.key")
        yield Rollout(stage, env, older, database, key)
    await database.aclose()


async def entries(database: Database) -> set[str]:
    """Requests that the store's ledger has."""
    async with database.reading() as connection:
        rows = await connection.execute(ledger.select().where(ledger.c.counts))
        return {row.request_id for row in rows}


async def test_forward_under_load(rollout: Rollout) -> None:
    """Two gateways of now start together: one migrates, no request fails, none is missing in the ledger.

    The one of before goes on over the newer tables: it reads and writes accounts, and starts again over them.
    """
    with contextlib.ExitStack() as stack:
        before = await asyncio.to_thread(stack.enter_context, rollout.before())
        await rollout.key_at(before, rollout.key, 200)
        rollout.at.append(before)
        load = asyncio.create_task(rollout.load())
        await rollout.more()
        starting = [asyncio.to_thread(stack.enter_context, rollout.stage.run(rollout.env)) for _ in range(2)]
        now = await asyncio.gather(*starting)
        for gateway in now:
            await rollout.key_at(gateway, rollout.key, 200)
            await until(lambda at=gateway: bool(at.lines("files and batches are ready")))
        async with rollout.database.reading() as connection:
            assert await connection.run_sync(current) == HEAD
        assert sum(len(gateway.lines(MOVED)) for gateway in now) == 1
        rollout.at += now
        await rollout.more()

        made = await rollout.admin(before, "/keys", name="made by the one of before")
        await rollout.key_at(now[0], made["key"], 200)
        await rollout.admin(now[1], f"/keys/{made['id']}/revoke")
        await rollout.key_at(before, made["key"], 401)
        again = await asyncio.to_thread(stack.enter_context, rollout.before())
        await rollout.key_at(again, rollout.key, 200)
        assert "newer version" in again.program.log()
        rollout.at.append(again)
        await rollout.more()
        load.cancel()
        await asyncio.wait([load])
        assert rollout.failed == []
        wanted = {id_ for gateway in now for id_ in rollout.ids[gateway.port]}
        assert len(wanted) >= 40
        async with asyncio.timeout(60):
            while missing := wanted - await entries(rollout.database):  # noqa: ASYNC110  (gateways move them)
                await asyncio.sleep(0.1)
        assert missing == set()
