"""What a request is charged, through failed candidates and engines that are lost: once, and for what it used."""

import re

import pytest

from stream_core.cluster_config import Price
from stream_core.openai.chunks import Usage
from stream_gateway.accounts.principal import Limits, Principal, Subject
from stream_gateway.limits.account import NANO, Amounts
from stream_gateway.limits.book import Book
from stream_gateway.limits.estimate import GpuShare, Rates, Size
from stream_gateway.limits.meter import Meter
from stream_gateway.limits.refusals import QuotaExceeded

SIZE = Size(100, 900)
DEAR = Rates(Price(input=1_000.0, output=1_000.0), GpuShare(8.0, 2.0))
"""A tenth of a cent for a token, and four GPUs."""
FREE = Rates()
SMALL = Rates(DEAR.price, GpuShare(1.0))
ID = b"1"


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.now = 1_776_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Stands still."""
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    """Of one replica, without a broker: only the limits of a minute can be used, and whatever is told to be spent."""
    return Meter(Book("0", clock, shared=False), clock)


def whose(**limits: float) -> Principal:
    return Principal("key-1", None, None, subjects=(Subject("key", "key-1", Limits(**limits)),))  # type: ignore[arg-type]


async def left(meter: Meter, principal: Principal) -> int:
    """Tokens of the minute, as a request that wants none is told."""
    levels = await meter.admit(b"look", principal, Size(0, 0))
    meter.ended(b"look", usage=None, events=0, bytes_out=0, again=True)
    assert levels.tokens is not None
    return levels.tokens.remaining


async def test_a_candidate_that_failed_costs_nothing(meter: Meter, clock: Clock) -> None:
    """The next one is charged alone: its own rates, its own seconds, and the tokens once."""
    principal = whose(tokens_per_minute=10_000)
    await meter.admit(ID, principal, SIZE)
    assert await left(meter, principal) == 9_000
    await meter.charge(ID, principal, SIZE, DEAR)
    clock.now += 5
    meter.failed(ID)
    await meter.charge(ID, principal, SIZE, SMALL)
    meter.begun(ID, SMALL)
    clock.now += 2
    spent = meter.ended(ID, usage=Usage(7, 3), events=3, bytes_out=100)
    assert (spent.tokens, spent.counted) == (Usage(7, 3), "engine")
    assert spent.amounts == Amounts(10, NANO // 100, 2_000)
    assert await left(meter, principal) == 9_990


async def test_when_all_failed_nothing_is_charged(meter: Meter, clock: Clock) -> None:
    """What was reserved is there again."""
    principal = whose(tokens_per_minute=10_000)
    await meter.admit(ID, principal, SIZE)
    for rates in (DEAR, FREE):
        await meter.charge(ID, principal, SIZE, rates)
        clock.now += 1
        meter.failed(ID)
    assert meter.ended(ID, usage=None, events=0, bytes_out=0).amounts == Amounts()
    assert await left(meter, principal) == 10_000


@pytest.mark.parametrize("ends", ["complete", "cut", "lost"])
async def test_an_answer_that_moves(meter: Meter, clock: Clock, ends: str) -> None:
    """Each engine's seconds at its own share, none while nobody has it; tokens of the whole, once."""
    principal = whose(tokens_per_minute=10_000)
    await meter.admit(ID, principal, SIZE)
    await meter.charge(ID, principal, SIZE, DEAR)
    meter.begun(ID, DEAR)
    clock.now += 3
    meter.moved(ID, None)
    clock.now += 20
    if ends != "lost":
        meter.moved(ID, SMALL)
        clock.now += 7
    usage = Usage(100, 50) if ends == "complete" else None
    spent = meter.ended(ID, usage=usage, events=50, bytes_out=5_000)
    assert spent.tokens == Usage(100, 50)
    assert spent.amounts == Amounts(150, 150 * NANO // 1_000, 3_000 * 4 + (0 if ends == "lost" else 7_000))
    assert await left(meter, principal) == 9_850
    meter.moved(ID, SMALL)  # a worker's end that is heard of too late changes nothing
    assert meter.ended(ID, usage=usage, events=50, bytes_out=5_000).amounts == Amounts()


async def test_a_candidate_that_is_too_dear_leaves_no_trace(meter: Meter) -> None:
    """Where nobody can tell what a month has cost, what costs is refused, and what was reserved for it is free."""
    principal = whose(tokens_per_minute=10_000, dollars_per_month=1e9)
    await meter.admit(ID, principal, SIZE)
    with pytest.raises(Exception, match=re.escape("can't be asked for now")) as caught:
        await meter.charge(ID, principal, SIZE, DEAR)
    assert not isinstance(caught.value, QuotaExceeded)
    meter.failed(ID)
    await meter.charge(ID, principal, SIZE, FREE)
    meter.begun(ID, FREE)
    assert meter.ended(ID, usage=Usage(1, 1), events=1, bytes_out=10).amounts == Amounts(2)
    assert await left(meter, principal) == 9_998
