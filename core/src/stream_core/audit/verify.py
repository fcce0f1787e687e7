"""Whether the ledger is as it was written: nothing taken out, put in, changed or moved. Pure.

What it can't tell: that the newest entries of a chain without its end are missing, unless somebody remembers the
chain's head (`Seen.heads` gives it).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from stream_core.audit.entries import Entry, hash_of

_DECODER = msgspec.json.Decoder(Entry)
_MOST_FAULTS = 100


@dataclass(slots=True)
class Run:
    """A chain, as far as it was seen."""

    number: int = -1
    sha256: str = ""
    opening: str = ""
    links: str = ""
    closed: bool = False


@dataclass(slots=True)
class Seen:
    """What was found."""

    entries: int = 0
    faults: list[str] = field(default_factory=list)
    """The first hundred, in words."""
    chains: dict[str, Run] = field(default_factory=dict)

    @property
    def heads(self) -> dict[str, tuple[int, str]]:
        """The last entry of each chain: its number and its SHA-256."""
        return {name: (run.number, run.sha256) for name, run in self.chains.items()}

    def fault(self, words: str) -> None:
        """Note what is wrong."""
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(words)


class Checking:
    """Checks a ledger entry by entry: those of one chain in their order, chains in any.

    Args:
        heads: what is remembered of chains: each must go at least so far, and over that entry.
    """

    def __init__(self, heads: Mapping[str, tuple[int, str]] | None = None) -> None:
        self._seen = Seen()
        self._left = dict(heads or {})

    def look(self, line: bytes) -> None:
        """Take the next entry, as it was written."""
        seen = self._seen
        try:
            entry = _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            seen.fault(f"after {seen.entries} entries stands what is none: {error}")
            return
        seen.entries += 1
        run = seen.chains.setdefault(entry.chain, Run())
        where = f"chain {entry.chain}, entry {entry.number}"
        if run.closed:
            seen.fault(f"{where}: it stands behind the chain's end")
        if entry.number != run.number + 1:
            seen.fault(f"{where}: entry {run.number + 1} is expected here")
        elif entry.before != run.sha256:
            seen.fault(f"{where}: the entry before it is not the one that was there when it was written")
        if (entry.kind == "opened") != (entry.number == 0):
            seen.fault(f"{where}: of kind {entry.kind!r}")
        run.number, run.sha256 = entry.number, hash_of(line)
        run.closed = run.closed or entry.kind == "closed"
        if entry.kind == "opened":
            run.opening, run.links = run.sha256, entry.links
        if self._left.get(entry.chain) == (entry.number, run.sha256):
            del self._left[entry.chain]

    def finish(self) -> Seen:
        """Check the chains among each other."""
        seen = self._seen
        for name, (number, _) in self._left.items():
            seen.fault(f"chain {name}: entry {number} was there once and is missing")
        openings = {run.opening for run in seen.chains.values()}
        first = [name for name, run in seen.chains.items() if run.opening and not run.links]
        for name, run in seen.chains.items():
            if run.links and run.links not in openings:
                seen.fault(f"chain {name}: the chain that was opened before it is missing")
        for name in first[1:]:
            seen.fault(f"chain {name} says that it is the first one, as chain {first[0]} does")
        return seen


def verify(lines: Iterable[bytes], heads: Mapping[str, tuple[int, str]] | None = None) -> Seen:
    """Check a whole ledger; see `Checking`."""
    checking = Checking(heads)
    for line in lines:
        checking.look(line.rstrip(b"\n"))
    return checking.finish()
