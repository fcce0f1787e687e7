"""What a request may spend, asked of all whom it counts for, before it is spent; and what it did spend, afterwards.

`admit` reserves requests, tokens and a place among those under way, for every subject with limits at once. `charge`
reserves dollars and GPU time once it is known who is to answer, and again for each further candidate. `ended` settles.
A principal without limits costs nothing here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from stream_core.api_keys import UNLIMITED, Limits
from stream_core.openai.chunks import Usage
from stream_gateway.accounts.principal import Principal, Subject
from stream_gateway.limits.account import NANO, Amounts, Claim, Level, Levels, Refused
from stream_gateway.limits.book import Book, Entry
from stream_gateway.limits.estimate import Rates, Size, counted, reserve, used
from stream_gateway.limits.page import Unknown
from stream_gateway.limits.refusals import LargerThanLimit, QuotaExceeded, RateExceeded, SumUnknown, refusal

_NOTHING = Amounts()
_UNKNOWN: Final = "what was used this month can't be asked for now, and there is a limit for it"
_Refusal = RateExceeded | QuotaExceeded | LargerThanLimit


@dataclass(slots=True)
class _Metered:
    """A request that has limits, or costs what the ledger wants to know."""

    size: Size
    entries: list[Entry] = field(default_factory=list)
    """What was reserved when it was admitted."""
    charges: list[Entry] = field(default_factory=list)
    """What was reserved for the candidate that is asked now."""
    rates: Rates = field(default_factory=Rates)
    since: float | None = None
    """When a candidate was asked, or took over; None: no engine has the request."""
    gpu_ms: int = 0
    """Of engines that lost the answer."""
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """What a request has used."""

    tokens: Usage | None = None
    """None: no engine answered."""
    amounts: Amounts = _NOTHING
    counted: Literal["", "engine", "events", "reserve"] = ""
    """By whom."""

    @property
    def dollars(self) -> float:
        """That a model with a price asks for it."""
        return self.amounts.nanodollars / NANO


class Meter:
    """See the module.

    Args:
        book: the accounts.
        clock: gives seconds that never go back.
    """

    def __init__(self, book: Book, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock
        self._running: dict[bytes, _Metered] = {}

    async def admit(self, request_id: bytes, principal: Principal, size: Size) -> Levels:
        """Let a request begin.

        Args:
            request_id: of the request; `ended` must follow, whatever happens.
            principal: whose it is.
            size: its tokens, at most.

        Returns:
            What is left of the limits of a minute: of each the one of which the least is left.

        Raises:
            RateExceeded: it may come again.
            QuotaExceeded: nothing is left.
            LargerThanLimit: it alone is too much.
            SumUnknown: the broker is away.
        """
        metered = self._running[request_id] = _Metered(size)
        limited = [subject for subject in principal.subjects if subject.limits != UNLIMITED]
        if not limited:
            return Levels()
        metered.entries = await self._claim(limited, Claim(reserve(size, Rates())))
        return _tightest([entry.granted.levels for entry in metered.entries])

    async def charge(self, request_id: bytes, principal: Principal, size: Size, rates: Rates) -> None:
        """Reserve what a candidate costs; errors as of `admit`.

        Args:
            request_id: of a request that was admitted.
            principal: whose it is.
            size: its tokens at most, as this candidate takes them.
            rates: of the candidate.
        """
        metered = self._running[request_id]
        metered.size, metered.rates, metered.since = size, rates, self._clock()
        cost = reserve(size, rates).minus(reserve(size, Rates()))
        limited = [subject for subject in principal.subjects if _spends(subject.limits, cost)]
        if limited:
            metered.charges = await self._claim(limited, Claim(cost, requests=0, streams=0))

    def failed(self, request_id: bytes) -> None:
        """A candidate did not answer: what it would have cost is given back."""
        metered = self._running[request_id]
        for entry in metered.charges:
            self._book.settle(entry, _NOTHING, 0)
        metered.charges, metered.rates, metered.since, metered.gpu_ms = [], Rates(), None, 0

    def begun(self, request_id: bytes, rates: Rates) -> None:
        """A candidate answers, and costs this."""
        metered = self._running[request_id]
        metered.begun, metered.rates = True, rates

    def moved(self, request_id: bytes, rates: Rates | None) -> None:
        """An answer has lost its engine (None), or goes on at another one, which costs this."""
        metered = self._running.get(request_id)
        if metered is None:
            return
        metered.gpu_ms += self._gpu_ms(metered)
        metered.since = None if rates is None else self._clock()
        metered.rates = metered.rates if rates is None else rates

    def ended(
        self, request_id: bytes, *, usage: Usage | None, events: int, bytes_out: int, again: bool = False
    ) -> Spent:
        """Settle a request; one that is not known has used nothing.

        Args:
            request_id: as admitted.
            usage: as the engine told it.
            events: of its stream; 0: it was none.
            bytes_out: that were sent.
            again: it comes again by itself, and counts then.
        """
        metered = self._running.pop(request_id, None)
        if metered is None:
            return Spent()
        tokens, amounts = None, _NOTHING
        if metered.begun:
            tokens = counted(metered.size, usage, events, bytes_out)
            amounts = used(tokens, metered.gpu_ms + self._gpu_ms(metered), metered.rates)
        for entry in metered.entries:
            self._book.settle(entry, Amounts(tokens=amounts.tokens), 0 if again else entry.claim.requests)
        cost = Amounts(nanodollars=amounts.nanodollars, gpu_ms=amounts.gpu_ms)
        for entry in metered.charges:
            self._book.settle(entry, cost, 0)
        by: Literal["", "engine", "events", "reserve"] = "engine" if usage else "events" if events else "reserve"
        return Spent(tokens, amounts, by if metered.begun else "")

    def _gpu_ms(self, metered: _Metered) -> int:
        """GPU time since the engine has the request that has it now."""
        if metered.since is None or metered.rates.gpu is None:
            return 0
        return metered.rates.gpu.ms(self._clock() - metered.since)

    async def peek(self, principal: Principal, size: Size, rates: Rates) -> str:
        """Say which limit a request would meet now; empty: none.

        Args:
            principal: whose it would be.
            size: its tokens, at most.
            rates: of who would answer.
        """
        found: list[_Refusal] = []
        for subject in principal.subjects:
            if subject.limits == UNLIMITED:
                continue
            try:
                verdict = await self._book.peek(subject, Claim(reserve(size, rates)))
            except Unknown:
                return _UNKNOWN
            if verdict is not None:
                found.append(refusal(subject, verdict))
        return max(found, key=_weight).message if found else ""

    async def _claim(self, subjects: list[Subject], claim: Claim) -> list[Entry]:
        """Ask all of them at once; what some have granted is given back when another one has not."""
        asking = [asyncio.create_task(self._book.claim(subject, claim)) for subject in subjects]
        try:
            await asyncio.wait(asking)
        except asyncio.CancelledError:
            for task in asking:
                task.add_done_callback(self._give_back)
                task.cancel()
            raise
        entries: list[Entry] = []
        refusals: list[_Refusal] = []
        unknown = False
        for subject, task in zip(subjects, asking, strict=True):
            try:
                verdict = task.result()
            except Unknown:
                unknown = True
                continue
            if isinstance(verdict, Refused):
                refusals.append(refusal(subject, verdict))
            else:
                entries.append(verdict)
        if refusals or unknown:
            for entry in entries:
                self._book.settle(entry, _NOTHING, 0)
        if refusals:
            raise max(refusals, key=_weight)
        if unknown:
            raise SumUnknown(_UNKNOWN)
        return entries

    def _give_back(self, task: "asyncio.Task[Entry | Refused]") -> None:
        if not task.cancelled() and task.exception() is None and isinstance(entry := task.result(), Entry):
            self._book.settle(entry, _NOTHING, 0)


def _spends(limits: Limits, cost: Amounts) -> bool:
    return (limits.dollars_per_month is not None and cost.nanodollars > 0) or (
        limits.gpu_hours_per_month is not None and cost.gpu_ms > 0
    )


def _weight(error: _Refusal) -> tuple[bool, bool, float]:
    """Of several refusals the client hears the one that waiting helps least."""
    wait = 0.0 if isinstance(error, LargerThanLimit) else error.retry_after_s
    return isinstance(error, LargerThanLimit), isinstance(error, QuotaExceeded), wait


def _tightest(found: list[Levels]) -> Levels:
    return Levels(_least([each.requests for each in found]), _least([each.tokens for each in found]))


def _least(found: list[Level | None]) -> Level | None:
    return min((level for level in found if level is not None), key=lambda level: level.remaining, default=None)
