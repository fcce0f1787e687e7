"""The ledger's chains: whatever is taken out, put in, changed or moved is found; the store takes an entry once."""

import random
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.audit.entries import LOST, Chain, Entry, Fields, hash_of
from stream_core.audit.verify import verify
from stream_core.ids import new_id, to_hex
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.migrating import migrate
from stream_gateway.ledger.table import entries, insert
from stream_gateway.settings import GatewaySettings

AT = 1_776_000_000.0


def written(*counts: int, end: bool = True) -> list[bytes]:
    """Write chains with so many requests, one after the other."""
    lines: list[bytes] = []
    links = ""
    for number, count in enumerate(counts):
        chain = Chain(f"{number:032x}")
        opening = chain.add("opened", AT, links=links)
        links = hash_of(opening)
        lines.append(opening)
        lines += [chain.add("request", AT, Fields(f"{number}-{n}", AT, prompt_tokens=n)) for n in range(count)]
        if end:
            lines.append(chain.add("closed", AT))
    return lines


def test_what_is_as_it_was_written() -> None:
    """Several replicas, also some that were killed: nothing is wrong."""
    for end in (True, False):
        seen = verify(written(3, 0, 20, end=end))
        assert seen.faults == []
        assert seen.entries == 26 + 3 * end
        assert len(seen.heads) == 3


@given(st.integers(0, 30), st.sampled_from(["remove", "edit", "swap", "copy", "forge"]), st.randoms())
def test_what_is_not(place: int, deed: str, dice: random.Random) -> None:
    """One entry that is missing, changed, moved, there twice or made up is found."""
    lines = written(10, 10, 6)
    place %= len(lines)
    match deed:
        case "remove":
            if Entry and msgspec.json.decode(lines[place], type=Entry).kind == "closed":
                return  # the newest entry of a chain: only a remembered head tells
            del lines[place]
        case "edit":
            entry = msgspec.json.decode(lines[place], type=Entry)
            if entry.kind == "closed":
                return
            lines[place] = msgspec.json.encode(msgspec.structs.replace(entry, at=entry.at + 1))
        case "swap":
            other = (place + 1 + dice.randrange(len(lines) - 1)) % len(lines)
            if lines[place][:60].split(b'"number"')[0] != lines[other][:60].split(b'"number"')[0]:
                return  # of two chains: their order is no matter
            lines[place], lines[other] = lines[other], lines[place]
        case "copy":
            lines.insert(dice.randrange(len(lines)), lines[place])
        case _:
            lines.insert(place, msgspec.json.encode(Entry("0" * 32, 3, "ff", "request", AT)))
    assert verify(lines).faults


def test_a_chain_that_is_missing_as_a_whole() -> None:
    """The one that was opened after it tells."""
    lines = written(2, 2, 2)
    assert verify(lines[:4] + lines[8:]).faults == [
        "chain 00000000000000000000000000000002: the chain that was opened before it is missing"
    ]


def test_a_chain_that_was_cut_short() -> None:
    """Whoever remembers the head finds it."""
    lines = written(5, end=False)
    heads = verify(lines).heads
    assert verify(lines[:-2], heads).faults == [
        "chain 00000000000000000000000000000000: entry 5 was there once and is missing"
    ]
    assert verify(lines[:-2]).faults == []


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    """A store in a file."""
    found = Database.of(GatewaySettings.model_construct(store_url="", state_dir=tmp_path))
    assert found is not None
    await migrate(found)
    return found


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
    await database.aclose()


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
    from sqlalchemy import select  # noqa: PLC0415  (one test's)

    from stream_gateway.ledger.table import ledger  # noqa: PLC0415

    async with database.reading() as connection:
        rows = (await connection.execute(select(ledger.c.prompt_tokens, ledger.c.counts))).all()
    assert sorted(rows) == [(10, False), (11, False), (12, True)]
    await database.aclose()
