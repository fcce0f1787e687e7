"""The ledger's writer over a broker that is slow, forgets to answer, or is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from stream_core.audit.entries import Chain, Entry, Fields
from stream_core.audit.verify import verify
from stream_gateway.batches.faults import StoreAway
from stream_gateway.ledger import writer
from stream_gateway.ledger.writer import Ledger, Slip

AT = 1_776_000_000.0


class SlowRoad:
    """A way to the broker that keeps what it is given, when it is let."""

    def __init__(self) -> None:
        self.connected = True
        self.let = asyncio.Event()
        self.fails = 0
        self.kept: dict[str, Slip] = {}
        self.opening: list[str] = []

    async def open_chain(self, chain: Chain, at: float) -> None:
        """Open."""
        self.opening.append(chain.add("opened", at).decode())

    async def send(self, chain: str, name: str, slip: Slip) -> None:
        """Keep it: at once in the order of the calls, as a connection does; the answer comes when it is let."""
        if self.fails:
            self.fails -= 1
            raise StoreAway("no answer")
        self.kept[name] = slip
        await self.let.wait()


@contextlib.asynccontextmanager
async def following(road: SlowRoad, **fields: Any) -> AsyncIterator[Ledger]:
    """A ledger that writes until the block ends."""
    ledger = Ledger("a" * 32, lambda: AT, kept=True, **fields)
    await ledger.opened(road)
    task = asyncio.create_task(ledger.follow())
    try:
        yield ledger
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_LOOK_S", 0.005)
    monkeypatch.setattr(writer, "_RETRY_S", 0.005)


async def test_an_answer_waits_for_a_slow_broker() -> None:
    """The first byte leaves when the broker has confirmed the intent, not after a while."""
    road = SlowRoad()
    async with following(road) as ledger:
        ledger.intend(b"1", Fields("1", AT))
        waiting = asyncio.create_task(ledger.intended(b"1"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        road.let.set()
        await waiting
        assert road.kept["1"].intent is not None


async def test_an_intent_without_an_answer_is_sent_again() -> None:
    """The broker is there, and what it did with the intent is not known."""
    road = SlowRoad()
    road.let.set()
    road.fails = 3
    async with following(road) as ledger:
        ledger.intend(b"1", Fields("1", AT))
        await ledger.intended(b"1")
        assert road.kept["1"].intent is not None


async def test_no_answer_waits_for_a_broker_that_is_away() -> None:
    """It goes away while the intent is under way."""
    road = SlowRoad()
    async with following(road) as ledger:
        ledger.intend(b"1", Fields("1", AT))
        waiting = asyncio.create_task(ledger.intended(b"1"))
        await settled()
        assert not waiting.done()
        road.connected = False
        await waiting
        road.connected, road.fails = True, 1_000
        ledger.intend(b"2", Fields("2", AT))
        await settled()
        road.connected = False
        await ledger.intended(b"2")
        assert "2" not in road.kept


async def test_an_intent_never_takes_the_place_of_its_entry() -> None:
    """The request ends while its intent is still being tried."""
    road = SlowRoad()
    road.let.set()
    road.fails = 1
    async with following(road) as ledger:
        ledger.intend(b"1", Fields("1", AT))
        await settled()
        assert not road.kept
        ledger.note(b"1", Fields("1", AT, ended="complete"))
        await asyncio.sleep(0.05)
        assert road.kept["1"].entry


async def test_what_is_under_way_when_the_connection_ends_goes_over_the_next_one() -> None:
    """Numbered and not confirmed: not lost, and the chain has no gap."""
    first, second = SlowRoad(), SlowRoad()
    second.let.set()
    async with following(first) as ledger:
        ledger.note(b"1", Fields("1", AT))
        await settled()
    await ledger.opened(second)
    task = asyncio.create_task(ledger.follow())
    ledger.note(b"2", Fields("2", AT))
    await ledger.close()
    task.cancel()
    lines = [*first.opening, *(slip.entry for slip in second.kept.values())]
    assert [msgspec.json.decode(line, type=Entry).kind for line in lines] == ["opened", "request", "request", "closed"]
    assert verify(line.encode() for line in lines).faults == []


@pytest.mark.parametrize(("fields", "held"), [({}, set()), ({"may_hold": {"public"}.__contains__}, {"public"})])
async def test_what_was_said_goes_along_where_its_class_allows(fields: dict[str, Any], held: set[str]) -> None:
    """Of any other class, one that is not known included, the entry says the same without it; so without a rule."""
    road = SlowRoad()
    road.let.set()
    async with following(road, **fields) as ledger:
        for privacy in ("public", "restricted", ""):
            said = Fields(privacy, AT, user="u", privacy=privacy, prompt="a question", answer="an answer")
            ledger.note(privacy.encode(), said)
        await settled()
    found = [msgspec.json.decode(slip.entry, type=Entry).request for slip in road.kept.values()]
    assert [each and each.user for each in found] == ["u"] * 3
    assert {each.privacy for each in found if each and (each.prompt or each.answer)} == held
    assert all("question" in slip.entry or slip.entry.count("answer") == 0 for slip in road.kept.values())
