"""Which of several replicas leads. Pure: reads and writes of one key of the broker's bucket in, what to do next out.

The key names a holder. It is written with compare-and-set, so each revision of it has one writer, and no clock but
one's own is ever looked at:

    role      | does                              | leaves it by
    ----------+-----------------------------------+-----------------------------------------------------------------
    FOLLOWING | reads the key                     | `claim_after_s` since it first saw this revision, or the key is
              |                                   | free: it writes; confirmed -> LEADING
    LEADING   | acts, writes the key again        | nothing confirmed for `lease_s`, counted from *before* the write
              |                                   | was sent -> SILENT
    SILENT    | does nothing but write or read    | its own write confirmed -> LEADING
    DEPOSED   | nothing, for ever                 | (another one's name stands in the key; a new `Election` follows)

    Why never two act: who claims revision r saw it `claim_after_s` ago at least, and it was written before it was
    seen; the one who wrote it stops `lease_s` after it began to write. With `claim_after_s` a quarter longer, clocks
    may run apart by a fifth, and be set to anything. A write that comes later finds another revision and is refused.

`now` is in seconds of a clock that only goes forward, and goes on while the machine sleeps.
"""

from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

_PATIENCE = 1.25


class Role(Enum):
    """The table above."""

    FOLLOWING = "following"
    LEADING = "leading"
    SILENT = "silent"
    DEPOSED = "deposed"


class Election(Struct, frozen=True):
    """What one replica knows of it."""

    me: str
    """Drawn anew by each process."""
    lease_s: float
    revision: int = 0
    """Of the key, as read or written last; 0: never written."""
    holder: str = ""
    """Empty: it is free."""
    seen_at: float | None = None
    """When this revision was first seen; None: nothing was read yet."""
    leads: bool = False
    acts_until: float = -inf
    deposed: bool = False

    @property
    def claim_after_s(self) -> float:
        """How long a follower lets a revision stand."""
        return self.lease_s * _PATIENCE


class Look(Struct, frozen=True):
    """Read the key."""


class Write(Struct, frozen=True):
    """Write one's own name, if the key still has this revision."""

    revision: int


def role(election: Election, now: float) -> Role:
    """Name what this replica is now."""
    if election.deposed:
        return Role.DEPOSED
    if not election.leads:
        return Role.FOLLOWING
    return Role.LEADING if now < election.acts_until else Role.SILENT


def next_move(election: Election, now: float) -> Look | Write:
    """Choose what to ask the bucket now; not for one that was deposed."""
    if election.leads:
        return Write(election.revision)
    if election.seen_at is None:
        return Look()
    over = now - election.seen_at >= election.claim_after_s
    return Write(election.revision) if over or not election.holder else Look()


def saw(election: Election, revision: int, holder: str, now: float) -> Election:
    """Take what a read gave; `now`: when its answer was there."""
    if election.leads:
        if holder == election.me:
            return replace(election, revision=revision)  # our own write, whose confirmation was lost
        return replace(election, revision=revision, holder=holder, leads=False, deposed=True)
    if election.seen_at is not None and revision == election.revision:
        return election
    return replace(election, revision=revision, holder=holder, seen_at=now)


def wrote(election: Election, revision: int, sent_at: float) -> Election:
    """Take the confirmation of one's own write; `sent_at`: before it was sent."""
    if election.deposed:
        return election
    return replace(
        election,
        revision=revision,
        holder=election.me,
        seen_at=sent_at,
        leads=True,
        acts_until=max(election.acts_until, sent_at + election.lease_s),
    )
