"""The ledger in the store of accounts: each entry's bytes as they were written, and columns to ask by."""

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text, select, update
from sqlalchemy.dialects import postgresql, sqlite

from stream_core.audit.entries import LOST, Entry, Fields
from stream_gateway.accounts.database import Database
from stream_gateway.accounts.tables import metadata

_PAGE: Final = 1_000
_DECODER: Final = msgspec.json.Decoder(Entry)
ledger: Final = Table(
    "ledger",
    metadata,
    Column("chain", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("request_id", String(64)),
    Column("counts", Boolean, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("day", String(10), nullable=False),
    Column("key_id", String(500), nullable=False),
    Column("user_id", String(500), nullable=False),
    Column("project_id", String(500), nullable=False),
    Column("tier", String(200), nullable=False),
    Column("model", String(300), nullable=False),
    Column("status", Integer, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("nanodollars", BigInteger, nullable=False),
    Column("gpu_ms", BigInteger, nullable=False),
    Index(None, "request_id"),
    Index(None, "at"),
    Index(None, "key_id"),
    Index(None, "user_id"),
)
"""`counts` is false for what is no request, and for a request's entry that a better one has taken the place of."""


def row_of(text: str) -> dict[str, Any]:
    """Read an entry into its columns."""
    entry = _DECODER.decode(text)
    fields = entry.request or Fields("", entry.at)
    return {
        "chain": entry.chain,
        "number": entry.number,
        "entry": text,
        "request_id": fields.id or None,
        "counts": entry.request is not None,
        "at": int(fields.at * 1000),
        "day": datetime.datetime.fromtimestamp(fields.at, datetime.UTC).date().isoformat(),
        "key_id": fields.key,
        "user_id": fields.user,
        "project_id": fields.project,
        "tier": fields.tier,
        "model": fields.model,
        "status": fields.status,
        "prompt_tokens": fields.prompt_tokens,
        "completion_tokens": fields.completion_tokens,
        "nanodollars": fields.nanodollars,
        "gpu_ms": fields.gpu_ms,
        "lost": fields.ended == LOST,
    }


async def insert(database: Database, texts: Sequence[str]) -> None:
    """Write entries; those that are there already are left as they are.

    Args:
        database: of the accounts.
        texts: entries as JSON.

    Raises:
        AccountsAway: the database does not answer; nothing was written.
    """
    rows = sorted((row_of(text) for text in texts), key=lambda row: row["lost"])
    dialect = sqlite if database.sqlite else postgresql
    async with database.writing() as connection:
        for row in rows:
            lost = row.pop("lost")
            same = ledger.c.request_id == row["request_id"]
            other = same & ((ledger.c.chain != row["chain"]) | (ledger.c.number != row["number"]))
            if row["counts"] and lost:
                # Given up for dead, its gateway has written the true one after all; or two have given it up.
                found = await connection.scalar(select(ledger.c.number).where(other & ledger.c.counts).limit(1))
                row["counts"] = found is None
            await connection.execute(dialect.insert(ledger).values(row).on_conflict_do_nothing())
            if row["counts"] and not lost:
                await connection.execute(update(ledger).where(other & ledger.c.counts).values(counts=False))


async def entries(database: Database, since: float | None = None, until: float | None = None) -> AsyncIterator[str]:
    """Read entries, chain by chain, each in its order.

    Args:
        database: of the accounts.
        since: unix seconds; None: from the beginning.
        until: likewise, not included; None: to the end.

    Raises:
        AccountsAway: also in the middle.
    """
    at = ("", -1)
    while True:
        wanted = select(ledger.c.chain, ledger.c.number, ledger.c.entry).order_by(ledger.c.chain, ledger.c.number)
        wanted = wanted.where((ledger.c.chain > at[0]) | ((ledger.c.chain == at[0]) & (ledger.c.number > at[1]))).limit(
            _PAGE
        )
        if since is not None:
            wanted = wanted.where(ledger.c.at >= int(since * 1000))
        if until is not None:
            wanted = wanted.where(ledger.c.at < int(until * 1000))
        async with database.reading() as connection:
            rows = (await connection.execute(wanted)).all()
        for row in rows:
            yield row.entry
        if len(rows) < _PAGE:
            return
        at = rows[-1].chain, rows[-1].number
