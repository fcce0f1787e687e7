"""GET /v1/usage and /v1/audit: everybody sees their own, administrators all of it and whether it is whole."""

import asyncio
import csv
import io
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway
from gateway_limits.bank import Bank, ask, known

pytestmark = pytest.mark.process


async def get(
    session: aiohttp.ClientSession, gateway: Gateway, key: str, path: str, /, **only: Any
) -> tuple[int, bytes]:
    """Ask with GET."""
    headers = gateway.headers(key)
    async with session.get(f"{gateway.url}/v1/{path}", params=only, headers=headers) as answer:
        return answer.status, await answer.read()


async def usage(session: aiohttp.ClientSession, gateway: Gateway, key: str, /, **only: Any) -> list[dict[str, Any]]:
    """The rows."""
    status, body = await get(session, gateway, key, "usage", **only)
    assert status == 200, body
    return list(json.loads(body)["data"])


@pytest.fixture
async def admin(bank: Bank, client: aiohttp.ClientSession) -> str:
    """Name of an administrator's key."""
    if "admin" not in bank.stage.keys:
        bank.stage.add_key("admin", admin=True)
    for gateway in bank.gateways:
        await known(client, gateway, "admin")
    return "admin"


async def used(bank: Bank, client: aiohttp.ClientSession) -> str:
    """A key that has asked five times, and whose entries are in the store; its name."""
    key = await bank.key()
    for model in ("local", "local", "gpu", "cloud", "cloud"):
        assert (await ask(client, bank.gateways[0], key, model=model, script={"tokens": 10})).status == 200
    for gateway in bank.gateways:  # one of them may not have opened its store yet
        await eventually(client, gateway, key, "usage", lambda told: sum(row["requests"] for row in told["data"]) == 5)
    return key


async def eventually(
    session: aiohttp.ClientSession, gateway: Gateway, key: str, path: str, enough: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Ask until the answer is so: entries are on their way for a moment."""
    for _ in range(600):
        status, body = await get(session, gateway, key, path)
        assert status in {200, 503}, body
        if status == 200 and enough(told := json.loads(body)):
            return dict(told)
        await asyncio.sleep(0.05)
    raise AssertionError(f"it is still {body!r}")


async def test_own_usage(bank: Bank, client: aiohttp.ClientSession) -> None:
    """By tier, model and day; nobody sees another's without being an administrator."""
    key, gateway = await used(bank, client), bank.gateways[0]
    tiers = await usage(client, gateway, key, group_by="tier")
    assert [(row["tier"], row["requests"], row["prompt_tokens"], row["completion_tokens"]) for row in tiers] == [
        ("cloud", 2, 10, 20),
        ("gpu", 1, 5, 10),
        ("local", 2, 10, 20),
    ]
    assert [row["dollars"] for row in tiers] == [pytest.approx(0.03), 0.0, 0.0]
    assert tiers[1]["gpu_hours"] > 0
    (day,) = await usage(client, gateway, key)
    assert day["requests"] == 5
    assert await usage(client, gateway, key, **{"from": "2020-01-01", "to": "2020-12-31"}) == []
    status, body = await get(client, gateway, key, "usage", key="key-of-another")
    assert (status, json.loads(body)["error"]["code"]) == (403, "not_allowed")
    for path in ("audit", "audit/verify"):
        assert (await get(client, gateway, key, path))[0] == 403


@pytest.mark.parametrize(
    ("only", "param"), [({"from": "2026-02-01", "to": "2026-01-01"}, "from"), ({"to": "x"}, "to"), ({"to": "0"}, "to")]
)
async def test_bad_days(bank: Bank, client: aiohttp.ClientSession, only: dict[str, str], param: str) -> None:
    """They are 400 and named."""
    status, body = await get(client, bank.gateways[0], await bank.key(), "usage", **only)
    assert (status, json.loads(body)["error"]["param"]) == (400, param)


async def test_all_usage(bank: Bank, client: aiohttp.ClientSession, admin: str) -> None:
    """An administrator sees it by key, and can ask for one."""
    key, gateway = await used(bank, client), bank.gateways[0]
    id_ = next(record.id for record in bank.stage.records if record.name == key)
    rows = await usage(client, gateway, admin, group_by="key")
    assert next(row for row in rows if row["key"] == id_)["requests"] == 5
    (row,) = await usage(client, gateway, admin, key=id_)
    assert row["requests"] == 5


async def test_the_ledger(bank: Bank, client: aiohttp.ClientSession, admin: str) -> None:
    """It is exported entry by entry, as JSONL and CSV, and found to be whole."""
    key, gateway = await used(bank, client), bank.gateways[0]
    id_ = next(record.id for record in bank.stage.records if record.name == key)
    status, body = await get(client, gateway, admin, "audit")
    lines = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert sum(line.get("request", {}).get("key") == id_ for line in lines) == 5
    status, body = await get(client, gateway, admin, "audit", form="csv")
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert sum(row["key"] == id_ for row in rows) == 5
    told = await eventually(client, gateway, admin, "audit/verify", lambda told: told["ok"])
    assert told["faults"] == []
    assert told["entries"] >= len(lines)
