"""Opaque tokens: the authority is asked once, its answers hold for a while, and what it says is checked."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from gateway_accounts.provider import AUDIENCE, CLIENT_ID, CLIENT_SECRET, Provider

from stream_core.errors import ConfigError, NotAllowed, Unauthenticated, UpstreamUnavailable
from stream_gateway.accounts import globus_groups
from stream_gateway.accounts.answers import client
from stream_gateway.accounts.introspecting import Introspector
from stream_gateway.accounts.providers import Introspection

ASK = "/v2/oauth2/token/introspect"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A running authority."""
    async with Provider().running() as running:
        yield running


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def ask(provider, tmp_path):
    """Builds an introspector of that authority."""
    (tmp_path / "secret").write_text(f"{CLIENT_SECRET}\n")
    async with client(None) as session:

        def build(clock=time.time, **fields) -> Introspector:
            base = {
                "audience": [AUDIENCE],
                "required_scope": ["stream"],
                "client_id": CLIENT_ID,
                "issuer": provider.url,
            }
            base |= {"endpoint": provider.url + ASK, "client_secret_file": tmp_path / "secret", **fields}
            return Introspector(Introspection(**base), session, clock)

        yield build


def active(provider: Provider, **changes) -> dict:
    return {**provider.claims(**changes), "active": True}


async def test_an_active_token_names_its_user(provider, ask) -> None:
    """Once asked, a hundred requests at once and later ones get the same answer."""
    provider.tokens["opaque"] = active(provider, username="ann@globus", name=None)
    introspector = ask()
    told = await asyncio.gather(*(introspector.verify("opaque") for _ in range(100)))
    assert {each.user.name for each in told} == {"ann@globus"}
    await introspector.verify("opaque")
    assert provider.count(ASK) == 1


async def test_answers_hold_for_a_while(provider, ask) -> None:
    """A token that is taken back is refused after `cache_s`, one that ends after its end; a refusal is asked again."""
    clock = Clock()
    provider.tokens["long"] = active(provider)
    provider.tokens["short"] = active(provider, exp=int(clock.now) + 5)
    introspector = ask(clock, cache_s=60, refusal_cache_s=10, leeway_s=0)
    await introspector.verify("long")
    await introspector.verify("short")
    del provider.tokens["long"]
    clock.now += 6
    await introspector.verify("long")
    with pytest.raises(Unauthenticated, match="expired"):
        await introspector.verify("short")
    clock.now += 55
    with pytest.raises(Unauthenticated, match="unknown"):
        await introspector.verify("long")
    provider.tokens["long"] = active(provider, exp=int(clock.now) + 900)
    with pytest.raises(Unauthenticated):
        await introspector.verify("long")
    assert provider.count(ASK) == 4
    clock.now += 11
    await introspector.verify("long")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"active": False}, Unauthenticated, "unknown to its authority"),
        ({"active": "true"}, Unauthenticated, "unknown to its authority"),
        ({"aud": "another"}, Unauthenticated, "another audience"),
        ({"aud": None}, Unauthenticated, "another audience"),
        ({"iss": "https://elsewhere"}, Unauthenticated, "issuer"),
        ({"sub": 7}, Unauthenticated, "names nobody"),
        ({"scope": "openid"}, NotAllowed, "scope stream"),
        ({"exp": 1}, Unauthenticated, "expired"),
    ],
)
async def test_what_the_authority_says_is_checked(provider, ask, changes, error, words) -> None:
    """An answer that is not for us lets nobody in, and the same refusal comes from memory."""
    provider.tokens["opaque"] = {**active(provider), **changes}
    introspector = ask()
    for _ in range(2):
        with pytest.raises(error, match=words):
            await introspector.verify("opaque")
    assert provider.count(ASK) == 1


async def test_the_authority_is_away(provider, ask) -> None:
    """What is remembered goes on; for the rest it is 503, and nothing of that is remembered."""
    provider.tokens |= {"known": active(provider), "new": active(provider)}
    introspector = ask()
    await introspector.verify("known")
    provider.away = True
    await introspector.verify("known")
    with pytest.raises(UpstreamUnavailable, match="503"):
        await introspector.verify("new")
    provider.away = False
    await introspector.verify("new")


async def test_who_leaves_does_not_take_the_answer_along(provider, ask) -> None:
    """The first of two that wait for one answer is cancelled; the second gets it."""
    provider.tokens["opaque"] = active(provider)
    introspector = ask()
    first = asyncio.create_task(introspector.verify("opaque"))
    second = asyncio.create_task(introspector.verify("opaque"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).user.name == "Ann"
    assert provider.count(ASK) == 1


async def test_what_is_remembered_is_bounded(provider, ask) -> None:
    """Strangers' tokens push out the oldest answers and nothing else."""
    introspector = ask(max_cached=3)
    for number in range(10):
        with pytest.raises(Unauthenticated):
            await introspector.verify(f"made up {number}")
    assert len(introspector._kept) == 3


async def test_globus_groups(provider, ask) -> None:
    """The plug-in gives the ids of active memberships, which can be demanded; a policy that says no is no."""
    provider.groups = [
        {"id": "g-active", "my_memberships": [{"status": "active"}]},
        {"id": "g-invited", "my_memberships": [{"status": "invited"}]},
        {"no": "id"},
    ]
    plugged = {
        "extra": "stream_gateway.accounts.globus_groups:groups",
        "parameters": {"include": "session_info", globus_groups.URL_PARAMETER: f"{provider.url}/groups"},
    }
    allowed = {"policy_evaluations": {"p1": {"evaluation": True}}}
    provider.tokens["opaque"] = {**active(provider, groups=None), **allowed}
    told = await ask(**plugged, required_groups=["g-active"]).verify("opaque")
    assert told.user.told_groups == {"g-active"}
    with pytest.raises(NotAllowed, match="none of the groups"):
        await ask(**plugged, required_groups=["g-invited"]).verify("opaque")
    provider.tokens["opaque"] = {**active(provider), "policy_evaluations": {"p1": {"evaluation": False}}}
    with pytest.raises(NotAllowed, match="policy"):
        await ask(**plugged).verify("opaque")


@pytest.mark.parametrize("extra", ["no_such_module_here:f", "stream_gateway.accounts.globus_groups:nothing"])
async def test_a_plug_in_that_is_not_there(ask, extra) -> None:
    """It is a wrong setting, told at the start."""
    with pytest.raises(ConfigError, match="can't be loaded"):
        ask(extra=extra)
