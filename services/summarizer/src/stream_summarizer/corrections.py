"""Which message takes back what an earlier one said, and the values that no longer hold. Pure.

Three ways of speaking are recognised, of users alone (what an assistant says follows from what it was told):

| way                          | example                                         | what is taken back                  |
|------------------------------|-------------------------------------------------|-------------------------------------|
| both values are named        | "change Monday to Friday", "May 3, not May 2"   | the latest claim of the old value   |
| a word of change             | "actually it is $1,400", "the new deadline is"  | the claim of another value of that  |
|                              |                                                 | kind with most words in common      |
| the same thing is said again | "My dog is called Rex." "My dog is called Max." | the claim with the same subject     |

What is not recognised costs nothing: both messages then compete as they are, and the later one has a small lead.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from stream_summarizer.analysis import Analysis
from stream_summarizer.claims import Claim

_LOOK_BACK: Final = 64
"""Claims of a kind, the latest first, that a change is compared with."""
_SHARED: Final = 2
"""Words around both values that must be the same where a word of change stands inside a sentence."""
_SAID_CLEARLY: Final = frozenset({"time", "date", "amount", "number", "contact"})
"""Kinds of values of which such a word is believed; names stand everywhere."""


class Correction(NamedTuple):
    """What became of an older message."""

    by: int
    """Position of the message that takes it back."""
    stale: frozenset[str]
    """Keys of the values that no longer hold."""


class _Made(NamedTuple):
    at: int
    claim: Claim


class _Ledger:
    """The claims so far."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[_Made]] = {}
        self._by_subject: dict[tuple[frozenset[str], str], _Made] = {}
        self._before = -1

    def add(self, at: int, claims: Sequence[Claim]) -> None:
        """Write down what a message claims."""
        for claim in claims:
            made = _Made(at, claim)
            self._by_kind.setdefault(claim.fact.kind, []).append(made)
            if claim.subject:
                self._by_subject[claim.subject, claim.fact.kind] = made
        self._before = at

    def taken_back(self, claim: Claim) -> _Made | None:
        """Find the claim that a new one replaces."""
        kind = claim.fact.kind
        if claim.replaces:
            made = self._by_kind.get(kind, ())
            return next((one for one in reversed(made) if one.claim.fact.key == claim.replaces), None)
        if claim.subject and (same := self._by_subject.get((claim.subject, kind))) and _other(same.claim, claim):
            return same
        if claim.cue == "opens" or (claim.cue == "within" and kind in _SAID_CLEARLY):
            return self._likest(claim)
        return None

    def _likest(self, claim: Claim) -> _Made | None:
        """Find what a word of change is about: of equals the latest."""
        best: _Made | None = None
        most = -1
        for made in self._by_kind.get(claim.fact.kind, ())[: -_LOOK_BACK - 1 : -1]:
            shared = len(claim.near & made.claim.near)
            needed = _SHARED if claim.cue == "within" else int(made.at != self._before)
            if shared > most and shared >= needed and _other(made.claim, claim):
                best, most = made, shared
        return best


def _other(old: Claim, new: Claim) -> bool:
    """Whether two claims of a kind may be about one thing, and differ; a bare number may be about anything."""
    if new.fact.kind == "number" and not new.unit and new.cue == "within":
        return False
    return old.unit == new.unit and old.fact.key != new.fact.key


def corrections(roles: Sequence[str], texts: Sequence[Analysis]) -> Mapping[int, Correction]:
    """Find what was taken back.

    Args:
        roles: of the messages, in order.
        texts: their analyses.

    Returns:
        By the older message's position; of several corrections of one message the last one's position.
    """
    found: dict[int, Correction] = {}
    ledger = _Ledger()
    for at, (role, text) in enumerate(zip(roles, texts, strict=True)):
        if role != "user":
            continue
        held = frozenset(claim.fact.key for claim in text.claims)
        for claim in text.claims:
            old = ledger.taken_back(claim)
            if old is not None and (old.claim.fact.key not in held or claim.replaces):
                stale = found[old.at].stale if old.at in found else frozenset[str]()
                found[old.at] = Correction(at, stale | {old.claim.fact.key})
        ledger.add(at, text.claims)
    return found
