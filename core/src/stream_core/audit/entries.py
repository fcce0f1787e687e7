"""The ledger's entries, and the chains that they form. Pure.

Each run of a gateway writes one chain: entries numbered from 0, each with the SHA-256 of the one before it. The first
one, of kind "opened", also has that of the opening entry of the chain that was opened before, over all replicas, so
that a chain can't vanish as a whole; the last one, of kind "closed", says that nothing follows. A gateway that was
killed has no such end.

    opened(A) <- request <- request <- ... <- closed
       ^
    opened(B) <- request <- ...

An entry's bytes are its JSON as it was first written; they are kept as they are, since their hash is.
"""

import hashlib
from typing import Literal

import msgspec

Kind = Literal["opened", "request", "closed"]
CONTENTS = frozenset({"prompt", "answer"})
"""Fields that hold what was said."""
LOST = "lost"
"""How a request ended whose gateway died: it is charged what was reserved."""


class Fields(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a request; never what was said, unless its project wants that."""

    id: str
    at: float
    """Unix seconds of its arrival."""
    key: str = ""
    user: str = ""
    project: str = ""
    privacy: str = ""
    tier: str = ""
    model: str = ""
    cluster: str = ""
    reason: str = ""
    """Why this tier and model, and what else befell it."""
    condensed: bool = False
    stream: bool = False
    batch: bool = False
    """Whether it was a line of one."""
    status: int = 0
    ended: str = ""
    """"complete", "client_gone", the code of an error, or "lost"."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: Literal["", "engine", "events", "reserve"] = ""
    """Who counted the tokens: the engine, its events, or nobody, so that what was reserved is charged."""
    nanodollars: int = 0
    gpu_ms: int = 0
    first_token_ms: float | None = None
    total_ms: float | None = None
    prompt: str | None = None
    """The request's body, or its begin, where the project wants contents in the ledger; None everywhere else."""
    answer: str | None = None
    """Likewise what was sent."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A link of a chain."""

    chain: str
    number: int
    before: str
    """SHA-256, hex, of the entry before it; empty in the first one."""
    kind: Kind
    at: float
    request: Fields | None = None
    links: str = ""
    """Of an opening entry: SHA-256 of the one that was opened before; empty in the very first one."""


def hash_of(data: bytes) -> str:
    """Name an entry."""
    return hashlib.sha256(data).hexdigest()


class Chain:
    """The chain that a gateway writes.

    Args:
        name: of the gateway's run.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._number = 0
        self._before = ""

    def add(self, kind: Kind, at: float, request: Fields | None = None, links: str = "") -> bytes:
        """Write the next entry."""
        entry = Entry(self.name, self._number, self._before, kind, at, request, links)
        data = msgspec.json.encode(entry)
        self._number += 1
        self._before = hash_of(data)
        return data
