"""The ledger in a gateway's store, as its file says."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from stream_core.audit.entries import Entry, Fields


def entries(folder: Path, least: int = 0) -> list[str]:
    """All of them, or (1) those that count, chain by chain."""
    path = folder / "state" / "accounts.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            wanted = "SELECT entry FROM ledger WHERE counts >= ? ORDER BY chain, number"
            return [text for (text,) in store.execute(wanted, [least])]
    except sqlite3.OperationalError:
        return []  # not made yet, or somebody writes


def requests(folder: Path, key: str | None = None) -> list[Fields]:
    """Those of requests, as they count: of one that two replicas gave up for dead, one."""
    found = [msgspec.json.decode(text, type=Entry).request for text in entries(folder, 1)]
    return [fields for fields in found if fields is not None and key in {None, fields.key}]


def entry_of(folder: Path, request_id: str) -> Fields:
    """The one entry of a request that counts."""
    (found,) = [fields for fields in requests(folder) if fields.id == request_id]
    return found
