"""One subject's account as this replica changes it: all that waits goes into one write, compared and set.

A claim costs one round trip, whatever number of claims comes at once, and none is granted that the record does not
show: what is granted was written over the very version that it was judged by. A refusal is judged by a version that
was read after the claim came.

A write of which no answer came may be there or not. The record tells: it holds the number of each replica's last
write. Until the broker is back, claims are judged by what is known here, unless they spend what a month must do with.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from stream_core.api_keys import Limits
from stream_core.errors import FrameError, SealError
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.limits.account import (
    Account,
    Amounts,
    Change,
    Claim,
    Levels,
    Refused,
    Replica,
    apply,
    check,
    grant,
    is_monthly,
    levels,
    prune,
    settle,
    summed,
)

_PATIENCE_S: Final = 5.0
"""For one write and what it needs; then the broker counts as away, though it is connected: a slow one is not."""
_DECODER: Final = msgspec.msgpack.Decoder(Account)
AWAY: Final = (StoreAway, TimeoutError, FrameError, SealError, msgspec.DecodeError)
"""What ends a try to read or write a record."""


class Store(Protocol):
    """Where records are; see `sums.Sums`."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        ...

    def place(self, name: str) -> str:
        """Tell where a subject's record is."""
        ...

    async def read(self, place: str) -> tuple[bytes, int]:
        """Read a record, and its sequence."""
        ...

    async def write(self, place: str, content: bytes, *, last: int) -> int:
        """Write a record over the one that was read."""
        ...


class Unknown(Exception):
    """The sum of the month is not known now."""


@dataclass(frozen=True, slots=True)
class Granted:
    """A claim that may be spent."""

    change: Change
    levels: Levels
    """What is left after it."""


@dataclass(frozen=True, slots=True)
class _Wish:
    limits: Limits
    claim: Claim
    answer: "asyncio.Future[Granted | Refused]"


@dataclass(slots=True)
class _Draft:
    """An account with what is about to be written to it."""

    account: Account
    now: float
    verdicts: list[Granted | Refused] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        return [verdict.change for verdict in self.verdicts if isinstance(verdict, Granted)]


class Page:
    """See the module.

    Args:
        name: of the subject.
        replica: this gateway's id.
        clock: gives unix seconds.
        lease_s: for how long the record believes that this replica lives.
        away: told when the broker is.
    """

    def __init__(
        self,
        name: str,
        replica: str,
        clock: Callable[[], float],
        *,
        lease_s: float,
        away: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._replica = replica
        self._clock = clock
        self._lease_s = lease_s
        self._away = away
        self._wishes: list[_Wish] = []
        self._owed: list[Change] = []
        self._known = b""
        self._sequence: int | None = None
        self._doubtful: tuple[int, list[Change]] | None = None
        """A write of which no answer came: its number and what it changes."""
        self._mark = 0
        self._open = 0
        self._told = 0
        """How much of `_open` the record says."""
        self._written_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.touched = clock()

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self._task or self._wishes or self._behind or self._open)

    @property
    def _behind(self) -> bool:
        return bool(self._owed or self._doubtful or self._open != self._told)

    async def claim(self, limits: Limits, claim: Claim, store: Store | None) -> Granted | Refused:
        """Ask for something.

        Args:
            limits: of the subject.
            claim: what is wanted.
            store: None while it can't be reached.

        Raises:
            Unknown: it has limits of a month, and the sum is not known.
        """
        self.touched = self._clock()
        wish = _Wish(limits, claim, asyncio.get_running_loop().create_future())
        if store is None and self._task is None:
            self._judge_here([wish])
        else:
            self._wishes.append(wish)
            self.write(store)
        return await wish.answer

    async def peek(self, limits: Limits, claim: Claim, store: Store | None) -> Refused | None:
        """Tell whether a claim would be refused; nothing is counted. Errors as of `claim`."""
        known = self._known
        try:
            if store is not None:
                async with asyncio.timeout(_PATIENCE_S):
                    known, _ = await store.read(store.place(self._name))
            elif is_monthly(limits, claim):
                raise Unknown
            account = _DECODER.decode(known) if known else Account()
        except AWAY as error:
            raise Unknown from error
        now = account.moment(self._clock())
        return check(account, limits, claim, account.streams(now, without=self._replica) + self._open, now)

    def settle(self, changes: Sequence[Change], streams: int, store: Store | None) -> None:
        """Correct what was granted, and free its place.

        Args:
            changes: to the account.
            streams: that have ended.
            store: None while it can't be reached.
        """
        self.touched = self._clock()
        self._owed += changes
        self._open -= streams
        self.write(store)

    def renew(self, store: Store | None) -> None:
        """Say again that this replica lives, when that is due; and write what could not be written."""
        due = self._open and self._clock() - self._written_at > self._lease_s / 3
        if due:
            self._told = -1
        if self._behind:
            self.write(store)

    def write(self, store: Store | None) -> None:
        """Begin to write, unless that is under way: then what waits goes with the next write."""
        if self._task is None and store is not None:
            self._task = asyncio.create_task(self._write_all(store), name="limits")

    async def _write_all(self, store: Store) -> None:
        try:
            while self._wishes or self._behind:
                wishes, self._wishes = self._wishes, []
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        await self._write(wishes, store)
                except AWAY as error:
                    self._away(error)
                    self._judge_here([wish for wish in wishes if not wish.answer.done()])
                    self._judge_here(self._wishes)
                    self._wishes = []
                    return
                finally:
                    for wish in wishes:
                        if not wish.answer.done():  # a bug must not hold a request for ever
                            wish.answer.set_exception(Unknown())
        finally:
            self._task = None

    async def _write(self, wishes: list[_Wish], store: Store) -> None:
        place = store.place(self._name)
        fresh = False
        while True:
            if self._sequence is None or self._doubtful is not None:
                self._known, self._sequence = await store.read(place)
                fresh = True
                self._resolve_doubt()
            owed, self._owed = summed(self._owed, self._clock()), []
            draft = self._judge(wishes, owed)
            if not fresh and any(isinstance(verdict, Refused) for verdict in draft.verdicts):
                self._sequence, self._owed = None, owed + self._owed
                continue
            started = sum(wish.claim.streams for wish, _ in _granted(wishes, draft))
            if not owed and not draft.changes and self._open == self._told:
                self._answer(wishes, draft)
                return
            self._mark += 1
            told = self._open + started
            draft.account.replicas[self._replica] = Replica(told, draft.now + self._lease_s, self._mark)
            content = msgspec.msgpack.encode(draft.account)
            self._doubtful = self._mark, owed + draft.changes
            try:
                self._sequence = await store.write(place, content, last=self._sequence)
            except Conflict:
                self._doubtful, self._owed = None, owed + self._owed
                self._sequence = None
                continue
            except (StoreAway, TimeoutError, asyncio.CancelledError):
                self._answer_in_doubt(wishes, draft)
                raise
            self._doubtful, self._known, self._told = None, content, told
            self._written_at = self._clock()
            self._answer(wishes, draft)
            return

    def _judge(self, wishes: list[_Wish], owed: list[Change]) -> _Draft:
        account = _DECODER.decode(self._known) if self._known else Account()
        now = account.moment(self._clock())
        prune(account, now)
        for change in owed:
            apply(account, change, now)
        draft = _Draft(account, now)
        running = account.streams(now, without=self._replica) + self._open
        for wish in wishes:
            refused = check(account, wish.limits, wish.claim, running, now)
            if refused is not None:
                draft.verdicts.append(refused)
                continue
            change = grant(wish.claim, now)
            apply(account, change, now)
            running += wish.claim.streams
            draft.verdicts.append(Granted(change, levels(account, wish.limits, now)))
        return draft

    def _judge_here(self, wishes: list[_Wish]) -> None:
        """Judge by what is known here; what is granted is owed to the record."""
        if not wishes:
            return
        known = [wish for wish in wishes if not is_monthly(wish.limits, wish.claim)]
        doubtful = self._doubtful[1] if self._doubtful else []
        draft = self._judge(known, summed([*doubtful, *self._owed], self._clock()))
        self._owed += draft.changes
        self._answer(known, draft)
        for wish in wishes:
            if not wish.answer.done():
                wish.answer.set_exception(Unknown())

    def _answer(self, wishes: list[_Wish], draft: _Draft) -> None:
        for wish, verdict in zip(wishes, draft.verdicts, strict=True):
            granted = isinstance(verdict, Granted)
            if granted:
                self._open += wish.claim.streams
            if not wish.answer.done():
                wish.answer.set_result(verdict)
            elif isinstance(verdict, Granted):
                self._take_back(wish, verdict)

    def _answer_in_doubt(self, wishes: list[_Wish], draft: _Draft) -> None:
        """Answer after a write that may not be there: it is owed, but nobody spends a month's limit on it."""
        self._told = -1
        for wish, _ in _granted(wishes, draft):
            if is_monthly(wish.limits, wish.claim) and not wish.answer.done():
                wish.answer.set_exception(Unknown())
        self._answer(wishes, draft)

    def _take_back(self, wish: _Wish, granted: Granted) -> None:
        """Nobody waits for it any more."""
        self._open -= wish.claim.streams
        self._owed += settle(granted.change, Amounts().minus(wish.claim.amounts), -wish.claim.requests, self._clock())

    def _resolve_doubt(self) -> None:
        if self._doubtful is None:
            return
        mark, changes = self._doubtful
        account = _DECODER.decode(self._known) if self._known else Account()
        mine = account.replicas.get(self._replica)
        if mine is None or mine.mark < mark:
            self._owed = changes + self._owed
        self._doubtful = None


def _granted(wishes: list[_Wish], draft: _Draft) -> list[tuple[_Wish, Granted]]:
    pairs = zip(wishes, draft.verdicts, strict=True)
    return [(wish, verdict) for wish, verdict in pairs if isinstance(verdict, Granted)]
