"""Replicas that change one account at once, with answers that get lost: exact all the same."""

import asyncio
import random

import msgspec
from gateway_limits.shelf import Shelf

from stream_core.api_keys import Limits
from stream_gateway.limits.account import Account, Amounts, Claim, Refused, settle
from stream_gateway.limits.page import Granted, Page, Unknown

NOW = 1_776_000_000.0


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def page(replica: str, clock: Clock) -> Page:
    """One replica's."""
    return Page("key:k", replica, clock, lease_s=15, away=lambda _error: None)


async def count(pages: list[Page], shelf: Shelf, each: int, limits: Limits, claim: Claim) -> list[Granted | Refused]:
    """Let all replicas ask at once."""
    return await asyncio.gather(*(one.claim(limits, claim, shelf) for one in pages for _ in range(each)))


def kept(shelf: Shelf) -> Account:
    """The record."""
    return msgspec.msgpack.decode(shelf.kept["key:k"][0], type=Account)


async def quiet(pages: list[Page], shelf: Shelf) -> None:
    """Let all be written that can be."""
    while any(one._task or one._behind for one in pages):
        for one in pages:
            one.renew(shelf)
        await asyncio.sleep(0)


async def test_a_thousand_at_once() -> None:
    """Of 1,000 requests at eight replicas, 100 are granted, with few writes."""
    shelf, clock = Shelf(), Clock()
    verdicts = await count(
        [page(str(n), clock) for n in range(8)], shelf, 125, Limits(requests_per_minute=100), Claim(Amounts())
    )
    assert sum(isinstance(verdict, Granted) for verdict in verdicts) == 100
    assert sum(kept(shelf).requests.values()) == 100
    assert shelf.writes <= 8


async def test_lost_answers() -> None:
    """Writes whose answers get lost, kept or not, are counted once; a month's limit is not overspent meanwhile."""
    shelf, clock, dice = Shelf(), Clock(), random.Random(7)  # noqa: S311  (the same ones each time)
    shelf.losing = lambda: dice.choice(["", "", "before", "after"])
    pages = [page(str(n), clock) for n in range(3)]
    limits = Limits(tokens_per_month=1_000)
    granted = 0
    for _ in range(60):
        for verdict in await asyncio.gather(
            *(one.claim(limits, Claim(Amounts(tokens=10)), shelf) for one in pages), return_exceptions=True
        ):
            assert isinstance(verdict, Granted | Refused | Unknown)
            granted += isinstance(verdict, Granted)
    assert granted <= 100
    shelf.losing = str
    await quiet(pages, shelf)
    assert kept(shelf).months["2026-04"].tokens == 10 * granted
    rest = await count(pages, shelf, 100, limits, Claim(Amounts(tokens=10)))
    assert sum(isinstance(verdict, Granted) for verdict in rest) == 100 - granted


async def test_the_broker_is_away() -> None:
    """Limits of a minute go on here, those of a month let nothing pass; what was used is written afterwards."""
    shelf, clock = Shelf(), Clock()
    one = page("a", clock)
    both = Limits(requests_per_minute=3, tokens_per_month=100)
    await one.claim(Limits(requests_per_minute=3), Claim(Amounts()), shelf)
    shelf.connected = False
    verdicts = [await one.claim(Limits(requests_per_minute=3), Claim(Amounts()), None) for _ in range(3)]
    assert [isinstance(verdict, Granted) for verdict in verdicts] == [True, True, False]
    for store in (None, shelf):
        try:
            await one.claim(both, Claim(Amounts(tokens=1)), store)
        except Unknown:
            continue
        raise AssertionError("spent blindly")
    shelf.connected = True
    await quiet([one], shelf)
    assert sum(kept(shelf).requests.values()) == 3


async def test_streams_of_a_replica_that_died() -> None:
    """Its requests under way count until its lease is over, and no longer."""
    shelf, clock = Shelf(), Clock()
    limits, claim = Limits(concurrent_streams=2), Claim(Amounts())
    dead, alive = page("dead", clock), page("alive", clock)
    await count([dead], shelf, 2, limits, claim)
    assert isinstance(await alive.claim(limits, claim, shelf), Refused)
    clock.now += 14
    assert isinstance(await alive.claim(limits, claim, shelf), Refused)
    clock.now += 2
    assert isinstance(await alive.claim(limits, claim, shelf), Granted)


async def test_streams_of_a_replica_that_lives() -> None:
    """It says so, however long they last; a place is free as soon as one ends."""
    shelf, clock = Shelf(), Clock()
    limits, claim = Limits(concurrent_streams=1), Claim(Amounts())
    one, other = page("one", clock), page("other", clock)
    granted = await one.claim(limits, claim, shelf)
    for _ in range(10):
        clock.now += 6
        one.renew(shelf)
        await quiet([one], shelf)
        assert isinstance(await other.claim(limits, claim, shelf), Refused)
    assert isinstance(granted, Granted)
    one.settle(settle(granted.change, Amounts(), 0, clock()), 1, shelf)
    await quiet([one], shelf)
    assert isinstance(await other.claim(limits, claim, shelf), Granted)


async def test_who_left_while_it_was_asked() -> None:
    """A claim whose request is gone before the answer is given back."""
    shelf, clock = Shelf(), Clock()
    one = page("a", clock)
    limits, claim = Limits(concurrent_streams=1, requests_per_minute=5, tokens_per_month=9), Claim(Amounts(tokens=9))
    asking = asyncio.create_task(one.claim(limits, claim, shelf))
    await asyncio.sleep(0)
    asking.cancel()
    await quiet([one], shelf)
    assert isinstance(await one.claim(limits, claim, shelf), Granted)
