"""The ledger in a store of either kind: an entry is kept once, a request counts once, and usage is added up."""

import datetime
import random
from collections.abc import AsyncIterator

import pytest
from gateway_accounts.conftest import Place
from gateway_limits.test_entries import AT, written
from sqlalchemy import select

from stream_core.audit.entries import LOST, Chain, Fields
from stream_core.audit.verify import verify
from stream_core.ids import new_id, to_hex
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.opening import open_store
from stream_gateway.ledger.table import entries, insert, ledger
from stream_gateway.ledger.usage import usage


@pytest.fixture
async def database(place: Place) -> AsyncIterator[Database]:
    """With the newest tables."""
    opened, _ = await open_store(place.settings_of())
    yield opened
    await opened.aclose()


async def test_the_store_takes_an_entry_once(database: Database) -> None:
    """Entries that come again, in any order, are there once and as they were written."""
    lines = [line.decode() for line in written(30, 30)]
    dice = random.Random(3)  # noqa: S311  (the same ones each time)
    for _ in range(3):
        some = dice.sample(lines, 40)
        await insert(database, some)
        await insert(database, some[:10])
    await insert(database, lines)
    kept = [text async for text in entries(database)]
    assert sorted(kept) == sorted(lines)
    assert verify(text.encode() for text in kept).faults == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_a_request_counts_once(database: Database, order: tuple[int, ...]) -> None:
    """Given up by two replicas, and written by its own after all: all entries are kept, the true one counts."""
    name = to_hex(new_id())
    texts = []
    for number, ended in enumerate((LOST, LOST, "complete")):
        chain = Chain(str(number))
        chain.add("opened", AT)
        texts.append(chain.add("request", AT, Fields(name, AT, ended=ended, prompt_tokens=10 + number)).decode())
    for place in order:
        await insert(database, [texts[place]])
    async with database.reading() as connection:
        rows = (await connection.execute(select(ledger.c.prompt_tokens, ledger.c.counts))).all()
    assert sorted(rows) == [(10, False), (11, False), (12, True)]


async def test_usage_is_added_up(database: Database) -> None:
    """By what is asked for, in whole numbers, of the days and subjects that are asked for."""
    chain = Chain("c")
    texts = [chain.add("opened", AT)]
    for number in range(40):
        fields = Fields(
            f"r{number}",
            AT + (number % 2) * 86_400,
            key=f"k{number % 4}",
            user="u" if number % 4 else "",
            prompt_tokens=10,
            completion_tokens=number,
            nanodollars=3_000_000_000,
            gpu_ms=3_600_000,
        )
        texts.append(chain.add("request", AT, fields))
    await insert(database, [text.decode() for text in texts])
    first = datetime.datetime.fromtimestamp(AT, datetime.UTC).date()
    last = first + datetime.timedelta(days=1)
    rows = await usage(database, ["day", "key"], first, last, {"user": "u"})
    assert [(row["day"], row["key"], row["requests"]) for row in rows] == [
        (first.isoformat(), "k2", 10),
        (last.isoformat(), "k1", 10),
        (last.isoformat(), "k3", 10),
    ]
    assert (rows[0]["prompt_tokens"], rows[0]["dollars"], rows[0]["gpu_hours"]) == (100, 30.0, 10.0)
    (all_of_it,) = await usage(database, [], first, last, {})
    assert (all_of_it["requests"], all_of_it["completion_tokens"]) == (40, sum(range(40)))
    part = [text async for text in entries(database, AT + 1, AT + 2 * 86_400)]
    assert len(part) == 20
