"""Two real gateways that share one store: what an admin does at one holds at both, and outlives both."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from gateway.stage import Gateway, Stage, tier, until
from gateway_accounts.postgres import Postgres
from gateway_accounts.provider import AUDIENCE, Provider

from stream_core.testing.broker import free_port
from stream_core.testing.engine import scripted_engine

pytestmark = pytest.mark.process
EFFECTIVE_S = 5.0
"""What is promised: a revocation holds everywhere within this time."""
PATIENCE_S = 20.0


@dataclass
class Pair:
    """Two gateways, and a client of an admin."""

    house: "House"
    one: Gateway
    other: Gateway
    session: aiohttp.ClientSession

    async def admin(self, method: str, path: str, *, at: Gateway | None = None, expect: int = 200, **body: Any) -> Any:
        """Ask the admin API, with the admin's key."""
        url = f"{(at or self.one).url}/admin/v1{path}"
        headers = self.one.headers("admin")
        async with self.session.request(method, url, headers=headers, json=body or None) as response:
            found = await response.json()
            assert response.status == expect, found
            return found

    async def models(self, key: str, *, at: Gateway | None = None, **headers: str) -> tuple[int, Any]:
        """List the models with a key or token: (status, body)."""
        headers = {"authorization": f"Bearer {key}", **headers}
        async with self.session.get(f"{(at or self.one).url}/v1/models", headers=headers) as response:
            return response.status, await response.json()

    async def everywhere(self, key: str, status: int) -> float:
        """Wait until both gateways answer a key in this way; the seconds that it took."""
        begun = time.monotonic()
        for gateway in (self.one, self.other):
            while (await self.models(key, at=gateway))[0] != status:
                assert time.monotonic() - begun < PATIENCE_S, gateway.program.log()
        return time.monotonic() - begun


@dataclass
class House:
    """Two running gateways, what they have in common, and where their identity provider is, when it runs."""

    stage: Stage
    one: Gateway
    other: Gateway
    settings: dict[str, Any]
    provider_port: int


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The house, on a store of each kind."""
    settings: dict[str, Any] = {"state_dir": tmp_path_factory.mktemp("state")}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = asyncio.run(server.create(f"replicas{time.time_ns()}"))
        settings = {"store_url": url, "store_password_file": server.password_file}
    port = free_port()
    issuer = {"issuer": f"http://127.0.0.1:{port}", "audience": [AUDIENCE], "refetch_pause_s": 0.01}
    settings["oidc"] = json.dumps([issuer])
    with scripted_engine() as engine, contextlib.ExitStack() as stack:
        tiers = [tier("local", engine), tier("cloud", engine, privacy="public")]
        stage = Stage(tmp_path_factory.mktemp("house"), {"tiers": tiers})
        stage.add_key("admin", admin=True)
        one, other = (stack.enter_context(stage.run(**settings)) for _ in range(2))
        yield House(stage, one, other, settings, port)


@pytest.fixture
async def both(house: House) -> AsyncIterator[Pair]:
    """The pair with a client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Pair(house, house.one, house.other, session)


async def test_the_life_of_a_key(both) -> None:
    """Made, used, limited, rotated with overlap, revoked: each at one gateway, each soon true at the other."""
    user = await both.admin("POST", "/users", name="Ann", tiers=["local"], limits={"requests_per_minute": 5})
    project = await both.admin("POST", "/projects", name=f"dark {time.time_ns()}", privacy="internal")
    refused = await both.admin("POST", "/keys", name="k", user=user["id"], project=project["id"], expect=400)
    assert "is not in the project" in refused["error"]["message"]
    await both.admin("PUT", f"/projects/{project['id']}/members/{user['id']}")
    made = await both.admin("POST", "/keys", name="laptop", user=user["id"], project=project["id"])
    key = made["key"]
    assert key.startswith(made["prefix"])
    await both.everywhere(key, 200)
    assert (await both.models(key, **{"openai-project": "another"}))[0] == 200  # its own project counts
    for gateway in (both.one, both.other):
        names = [model["id"] for model in (await both.models(key, at=gateway))[1]["data"]]
        assert names == ["auto", "local", "local/local-model"]
    limits = await both.admin("PUT", f"/limits/key/{made['id']}", tokens_per_minute=100)
    assert limits["limits"]["tokens_per_minute"] == 100
    assert (await both.admin("GET", f"/keys/{made['id']}", at=both.other))["limits"] == limits["limits"]

    fresh = await both.admin("POST", f"/keys/{made['id']}/rotate", overlap_s=600)
    assert fresh["key"] != key
    assert (fresh["owner"], fresh["limits"]) == (made["id"], limits["limits"])
    await both.everywhere(fresh["key"], 200)
    await both.everywhere(key, 200)
    again = await both.admin("POST", f"/keys/{made['id']}/rotate", expect=400)
    assert fresh["id"] in again["error"]["message"]

    await both.admin("POST", f"/keys/{made['id']}/revoke")
    await both.everywhere(key, 401)
    status, body = await both.models(key)
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert "revoked" in body["error"]["message"]
    await both.everywhere(fresh["key"], 200)
    at_once = await both.admin("POST", f"/keys/{fresh['id']}/rotate", at=both.other, overlap_s=0)
    await both.everywhere(fresh["key"], 401)
    await both.everywhere(at_once["key"], 200)
    await both.admin("PATCH", f"/users/{user['id']}", disabled=True)
    await both.everywhere(at_once["key"], 401)
    # Nothing that was shown once is in a log.
    for gateway in (both.one, both.other):
        for secret in (key, fresh["key"], at_once["key"], both.house.stage.keys["admin"]):
            assert secret not in gateway.program.log()


async def test_a_revocation_holds_everywhere_soon(both) -> None:
    """Within five seconds, as promised; a machine that stands still meanwhile gets two more tries."""
    took = []
    while not took or (took[-1] >= EFFECTIVE_S and len(took) < 3):
        made = await both.admin("POST", "/keys", name="soon over")
        await both.everywhere(made["key"], 200)
        await both.admin("POST", f"/keys/{made['id']}/revoke")
        took.append(await both.everywhere(made["key"], 401))
    assert took[-1] < EFFECTIVE_S, took


async def test_a_new_replica_knows_it_at_once(both) -> None:
    """A key of the store is valid at the first request that a gateway gets after its start."""
    made = await both.admin("POST", "/keys", name="kept", models=["local-model"], privacy="internal")
    with both.house.stage.run(**both.house.settings) as gateway:
        body = {"model": "local", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {made['key']}"}
        async with both.session.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body) as response:
            assert response.status == 200, await response.text()
        async with both.session.get(f"{gateway.url}/v1/models", headers=headers) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["auto", "local", "local/local-model"]


async def test_who_is_no_admin(both) -> None:
    """A key that is none gets 403 at every route, nobody 401; a key of the file is seen and not changed."""
    plain = both.one.headers("all")
    async with both.session.get(f"{both.one.url}/openapi.json") as response:
        document = await response.json()
    paths = {path: item for path, item in document["paths"].items() if path.startswith("/admin/")}
    assert len(paths) == 13
    for path, item in paths.items():
        url = both.one.url + path.replace("{kind}", "key").replace("{id}", "key-0").replace("{user}", "user-0")
        for method in item:
            async with both.session.request(method, url, headers=plain, json={"name": "x"}) as response:
                assert response.status == 403, (method, path)
            async with both.session.request(method, url, json={"name": "x"}) as response:
                assert response.status == 401, (method, path)
    (record,) = [record for record in both.house.stage.records if record.name == "admin"]
    assert (await both.admin("GET", f"/keys/{record.id}"))["source"] == "file"
    refused = await both.admin("POST", f"/keys/{record.id}/revoke", expect=404)
    assert "key file" in refused["error"]["message"]


WRONG = [
    ("POST", "/users", {"name": ""}, "name"),
    ("POST", "/users", {"name": "x" * 201}, "name"),
    ("POST", "/users", {"name": "a\u0000b"}, "name"),
    ("POST", "/users", {"name": "x", "issuer": "https://id"}, "issuer"),
    ("POST", "/users", {"name": "x", "surprise": 1}, "surprise"),
    ("POST", "/users", {"name": "x", "limits": {"requests_per_minute": -1}}, "limits.requests_per_minute"),
    ("POST", "/users", {"name": "x", "limits": {"requests_per_minute": 1.5}}, "limits.requests_per_minute"),
    ("POST", "/users", {"name": "x", "limits": {"requests_per_minute": "1"}}, "limits.requests_per_minute"),
    ("POST", "/users", {"name": "x", "disabled": "no"}, "disabled"),
    ("POST", "/projects", {"name": "x", "privacy": "secret"}, "privacy"),
    ("POST", "/keys", {"name": "x", "expires": 1}, "expires"),
    ("POST", "/keys", {"name": "x", "tiers": ["a"] * 1001}, "tiers"),
    ("GET", "/keys?limit=0", None, "limit"),
    ("GET", "/keys?after=key-none", None, "after"),
]


async def test_bad_input_is_told(both) -> None:
    """Each error is 400 and names the field; what is not there is 404; a name that is taken 409."""
    for method, path, body, field in WRONG:
        error = (await both.admin(method, path, expect=400, **(body or {})))["error"]
        assert field in error["message"], error
    for method, path in (("GET", "/users/user-0"), ("PATCH", "/keys/key-0"), ("DELETE", "/groups/group-0")):
        await both.admin(method, path, expect=404, **({"name": "x"} if method == "PATCH" else {}))
    await both.admin("POST", "/keys", expect=404, name="x", user="user-0")
    await both.admin("POST", "/keys", expect=404, name="x", project="project-0")
    name = f"group {time.time_ns()}"
    await both.admin("POST", "/groups", name=name)
    taken = await both.admin("POST", "/groups", at=both.other, expect=409, name=name)
    assert taken["error"]["code"] == "already_exists"
    page = await both.admin("GET", "/groups?limit=1")
    assert len(page["data"]) == 1
    seen = [page["last_id"]]
    while page["has_more"]:
        page = await both.admin("GET", f"/groups?limit=1&after={page['last_id']}")
        seen.append(page["last_id"])
    assert len(set(seen)) == len(seen)


async def test_tokens_of_a_provider(both) -> None:
    """A JWT lets its user in at both; the user is in the store soon, and disabled there, at both out again."""
    async with Provider().running(both.house.provider_port) as provider:
        token = provider.token()
        await both.everywhere(token, 200)
        provider.rotate("second")
        await both.everywhere(provider.token("second"), 200)
        assert (await both.models(provider.token(aud="other")))[0] == 401
        users: list[Any] = []
        begun = time.monotonic()
        while not users:
            users = (await both.admin("GET", f"/users?issuer={provider.url}", at=both.other))["data"]
            assert time.monotonic() - begun < PATIENCE_S
        assert (users[0]["subject"], users[0]["told_groups"]) == ("ann", ["physics"])
        await both.admin("PATCH", f"/users/{users[0]['id']}", disabled=True)
        await both.everywhere(token, 401)


@pytest.mark.parametrize("house", ["postgresql"], indirect=True)
async def test_the_database_dies_under_requests(both, postgres: Postgres) -> None:
    """Keys go on, admins get 503, it is logged once; and when it is back a revocation holds again."""
    made = await both.admin("POST", "/keys", name="kept")
    await both.everywhere(made["key"], 200)

    def told(gateway: Gateway, words: str) -> int:
        return gateway.program.log().count(words)

    away, back = "accounts can't be read", "accounts can be read again"
    before = {gateway.port: (told(gateway, away), told(gateway, back)) for gateway in (both.one, both.other)}
    postgres.stop()
    try:
        refused = await both.admin("GET", "/keys", expect=503)
        assert refused["error"]["code"] == "accounts_unavailable"
        for gateway in (both.one, both.other):
            await until(lambda at=gateway: told(at, away) > before[at.port][0])
            assert (await both.models(made["key"], at=gateway))[0] == 200
            assert (await both.models(made["key"] + "x", at=gateway))[0] == 401
    finally:
        postgres.start()
    for gateway in (both.one, both.other):
        await until(lambda at=gateway: told(at, back) > before[at.port][1])
        assert told(gateway, away) == before[gateway.port][0] + 1
    await both.admin("POST", f"/keys/{made['id']}/revoke")
    await both.everywhere(made["key"], 401)
