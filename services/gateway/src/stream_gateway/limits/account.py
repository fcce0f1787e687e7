"""What a subject has used, and whether it may use more: one record for all replicas. Pure: the clock is an argument.

    resource              | counted                                    | a request that is too much
    ----------------------+--------------------------------------------+--------------------------------------
    requests per minute   | admitted within the last 60 s              | may come again when enough are over
    tokens per minute     | prompt and answer: first as reserved, then | likewise; more than the limit alone: never
                          | as used, in the second of its admission    |
    concurrent streams    | admitted and not ended, of replicas that   | may come again when one ends
                          | have said within `LEASE_S` that they live  |
    tokens, dollars and   | of the calendar month, UTC, of admission;  | not before the month ends
    GPU hours per month   | first as reserved, then as used            |

Money is counted in billionths of a dollar and GPU time in milliseconds: sums of whole numbers lose nothing.
"""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from stream_core.api_keys import Limits
from stream_gateway.limits import window

LEASE_S: Final = 15.0
"""Streams of a replica that has not been heard of for so long count no more."""
NANO: Final = 1_000_000_000
_MS_PER_HOUR: Final = 3_600_000
_KEPT_MONTHS: Final = 2
_SOON_S: Final = 1.0
_SKEW_S: Final = 5.0

Resource = Literal["requests", "tokens", "streams", "tokens_month", "dollars_month", "gpu_month"]


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of what is used up."""

    tokens: int = 0
    nanodollars: int = 0
    gpu_ms: int = 0

    def minus(self, other: "Amounts") -> "Amounts":
        """Subtract, field by field."""
        return Amounts(self.tokens - other.tokens, self.nanodollars - other.nanodollars, self.gpu_ms - other.gpu_ms)

    def plus(self, other: "Amounts") -> "Amounts":
        """Add, field by field."""
        return Amounts(self.tokens + other.tokens, self.nanodollars + other.nanodollars, self.gpu_ms + other.gpu_ms)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request wants before it may begin."""

    amounts: Amounts
    requests: int = 1
    streams: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to an account, or taken away."""

    second: int
    """Unix second in whose bucket it counts."""
    month: str
    requests: int
    minute_tokens: int
    """Tokens, as the minute counts them."""
    amounts: Amounts
    """As the month counts them."""


@dataclass(frozen=True, slots=True)
class Level:
    """How much of a limit per minute is left."""

    limit: int
    remaining: int
    reset_s: float
    """Until all of it is there again, if nothing comes meanwhile."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Of both; None: there is no such limit."""

    requests: Level | None = None
    tokens: Level | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a claim was not granted. Nothing was counted."""

    resource: Resource
    limit: float
    used: float
    wanted: float
    """All three in the resource's own unit: dollars, hours."""
    retry_after_s: float | None
    """None: never, since the request alone is more than the limit."""


class Month(msgspec.Struct, array_like=True):
    """What was used within a calendar month."""

    tokens: int = 0
    nanodollars: int = 0
    gpu_ms: int = 0


class Replica(msgspec.Struct, array_like=True, frozen=True):
    """A gateway that has requests of this subject under way, or had until a moment ago."""

    open: int
    until: float
    """Unix seconds."""
    mark: int
    """Number of its last write, so that it knows whether a write of which it heard nothing is there."""


class Account(msgspec.Struct, array_like=True):
    """The record."""

    requests: window.Buckets = {}
    tokens: window.Buckets = {}
    months: dict[str, Month] = {}
    replicas: dict[str, Replica] = {}

    def moment(self, clock: float) -> float:
        """Tell the time: of the replicas' clocks the one that is ahead counts, if it is not wrong altogether."""
        latest = max(max(self.requests, default=0), max(self.tokens, default=0))
        return max(clock, min(latest, clock + _SKEW_S))

    def streams(self, now: float, *, without: str) -> int:
        """Count what is under way at other replicas."""
        return sum(one.open for name, one in self.replicas.items() if one.until > now and name != without)


def month_of(now: float) -> str:
    """Name a moment's month, UTC."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m")


def month_ends_in_s(now: float) -> float:
    """Tell how long a moment's month still lasts."""
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + datetime.timedelta(days=32)).replace(day=1) - at).total_seconds()


def is_monthly(limits: Limits, claim: Claim) -> bool:
    """Whether a claim spends of what must do for a month, so that it can't pass while the sum is not known."""
    wanted = claim.amounts
    return (
        (limits.tokens_per_month is not None and wanted.tokens > 0)
        or (limits.dollars_per_month is not None and wanted.nanodollars > 0)
        or (limits.gpu_hours_per_month is not None and wanted.gpu_ms > 0)
    )


def prune(account: Account, now: float) -> None:
    """Forget what can't count any more."""
    window.prune(account.requests, now)
    window.prune(account.tokens, now)
    for month in sorted(account.months)[:-_KEPT_MONTHS]:
        del account.months[month]
    for name in [name for name, one in account.replicas.items() if one.until + window.SPAN_S <= now]:
        del account.replicas[name]


def check(account: Account, limits: Limits, claim: Claim, open_streams: int, now: float) -> Refused | None:
    """Tell whether a claim may be granted; the worst obstacle first.

    Args:
        account: as it stands.
        limits: of the subject.
        claim: what is wanted.
        open_streams: under way at all replicas.
        now: unix seconds, as of `Account.moment`.
    """
    month = account.months.get(month_of(now), Month())
    wanted = claim.amounts
    ends = month_ends_in_s(now)
    for resource, limit, unit, used, more in (
        ("tokens_month", limits.tokens_per_month, 1, month.tokens, wanted.tokens),
        ("dollars_month", limits.dollars_per_month, NANO, month.nanodollars, wanted.nanodollars),
        ("gpu_month", limits.gpu_hours_per_month, _MS_PER_HOUR, month.gpu_ms, wanted.gpu_ms),
    ):
        # What costs nothing may go on where nothing is left.
        if limit is not None and more > 0 and used + more > limit * unit:
            return Refused(resource, limit, used / unit, more / unit, ends)  # type: ignore[arg-type]  # of a literal table
    for resource, limit, buckets, more in (
        ("tokens", limits.tokens_per_minute, account.tokens, wanted.tokens),
        ("requests", limits.requests_per_minute, account.requests, claim.requests),
    ):
        used = window.used(buckets, now)
        if limit is not None and more > 0 and used + more > limit:
            wait = window.room_in_s(buckets, now, limit - more) if more <= limit else None
            return Refused(resource, limit, used, more, wait)  # type: ignore[arg-type]  # likewise
    limit = limits.concurrent_streams
    if limit is not None and claim.streams > 0 and open_streams + claim.streams > limit:
        return Refused("streams", limit, open_streams, claim.streams, _SOON_S if limit > 0 else None)
    return None


def grant(claim: Claim, now: float) -> Change:
    """Write what counts when a claim is granted."""
    return Change(int(now), month_of(now), claim.requests, claim.amounts.tokens, claim.amounts)


def settle(granted: Change, more: Amounts, requests: int, now: float) -> list[Change]:
    """Write what corrects a grant.

    Args:
        granted: what was counted.
        more: what was used above what was reserved; less than nothing where it was less.
        requests: to be counted more, or less.
        now: unix seconds.
    """
    # What was not foreseen is used now; what was not used after all is taken back where it stands.
    changes = [Change(granted.second, granted.month, requests, min(0, more.tokens), more)]
    if more.tokens > 0:
        changes.append(Change(int(now), granted.month, 0, more.tokens, Amounts()))
    return changes


def apply(account: Account, change: Change, now: float) -> None:
    """Count a change.

    Args:
        account: where.
        change: to it.
        now: unix seconds, as of `Account.moment`.
    """
    if change.second + 1 + window.SPAN_S > now:
        window.add(account.requests, change.second, change.requests)
        window.add(account.tokens, change.second, change.minute_tokens)
    more = change.amounts
    month = account.months.setdefault(change.month, Month())
    month.tokens = max(0, month.tokens + more.tokens)
    month.nanodollars = max(0, month.nanodollars + more.nanodollars)
    month.gpu_ms = max(0, month.gpu_ms + more.gpu_ms)


def summed(changes: Iterable[Change], now: float) -> list[Change]:
    """Put changes together, so that those of a long time are few: what the minute has forgotten is one for a month."""
    found: dict[tuple[int, str], Change] = {}
    for change in changes:
        second = change.second if change.second + 1 + window.SPAN_S > now else 0
        before = found.get((second, change.month), Change(second, change.month, 0, 0, Amounts()))
        found[second, change.month] = Change(
            second,
            change.month,
            before.requests + change.requests,
            before.minute_tokens + change.minute_tokens,
            before.amounts.plus(change.amounts),
        )
    return list(found.values())


def levels(account: Account, limits: Limits, now: float) -> Levels:
    """Tell what is left within the minute."""
    return Levels(
        _level(limits.requests_per_minute, account.requests, now), _level(limits.tokens_per_minute, account.tokens, now)
    )


def _level(limit: int | None, buckets: window.Buckets, now: float) -> Level | None:
    if limit is None:
        return None
    return Level(limit, max(0, limit - window.used(buckets, now)), window.empty_in_s(buckets, now))
