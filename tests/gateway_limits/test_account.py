"""The account of a subject: never above a limit, nothing lost in settling, windows and months."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.api_keys import Limits
from stream_gateway.limits import window
from stream_gateway.limits.account import (
    NANO,
    Account,
    Amounts,
    Change,
    Claim,
    Refused,
    apply,
    check,
    grant,
    levels,
    month_ends_in_s,
    prune,
    settle,
    summed,
)

NOW = datetime.datetime(2026, 4, 16, 12, tzinfo=datetime.UTC).timestamp()

steps = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 50), st.one_of(st.none(), st.integers(0, 80))), min_size=1, max_size=60
)
"""(seconds that pass, tokens reserved, tokens used; None: not settled)."""


def ask(account: Account, limits: Limits, claim: Claim, now: float) -> Change | Refused:
    """Check and grant, as a page does."""
    now = account.moment(now)
    prune(account, now)
    refused = check(account, limits, claim, 0, now)
    if refused is not None:
        return refused
    change = grant(claim, now)
    apply(account, change, now)
    return change


@given(steps, st.integers(1, 20), st.integers(50, 200))
def test_no_minute_has_more_than_the_limit(
    steps: list[tuple[float, int, int | None]], requests: int, tokens: int
) -> None:
    """Wherever a minute begins, no more requests and reserved tokens were let in within it than the limits say."""
    account, now = Account(), NOW
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens)
    admitted: list[tuple[float, int]] = []
    for pause, wanted, _ in steps:
        now += pause
        verdict = ask(account, limits, Claim(Amounts(tokens=wanted)), now)
        if isinstance(verdict, Change):
            admitted.append((now, wanted))
        else:
            assert verdict.used + verdict.wanted > verdict.limit
        within = [amount for at, amount in admitted if at > now - window.SPAN_S]
        assert len(within) <= requests
        assert sum(within) <= tokens


@given(steps, st.integers(50, 2_000))
def test_a_month_never_has_more_reserved_and_used_than_the_limit(
    steps: list[tuple[float, int, int | None]], limit: int
) -> None:
    """With answers that use no more than was reserved, the sum stays below the limit, and is what was used."""
    account, now, true = Account(), NOW, 0
    limits = Limits(tokens_per_month=limit)
    for pause, wanted, used in steps:
        now += pause
        verdict = ask(account, limits, Claim(Amounts(tokens=wanted)), now)
        if isinstance(verdict, Refused):
            assert true + wanted > limit
            continue
        spent = wanted if used is None else min(used, wanted)
        for change in settle(verdict, Amounts(tokens=spent - wanted), 0, now):
            apply(account, change, now)
        true += spent
        assert account.months["2026-04"].tokens == true <= limit


@given(steps)
def test_settling_loses_nothing(steps: list[tuple[float, int, int | None]]) -> None:
    """Whatever was reserved and used, in whichever order and put together or not, the month has what was used."""
    one, other, now = Account(), Account(), NOW
    owed: list[Change] = []
    true = Amounts()
    for pause, wanted, used in steps:
        now += pause
        change = grant(Claim(Amounts(wanted, wanted, wanted)), now)
        apply(one, change, now)
        spent = wanted if used is None else used
        corrections = settle(change, Amounts(spent, spent, spent).minus(Amounts(wanted, wanted, wanted)), 0, now)
        for correction in corrections:
            apply(one, correction, now)
        owed = summed([*owed, change, *corrections], now)
        true = true.plus(Amounts(spent, spent, spent))
    for change in owed:
        apply(other, change, now)
    for account in (one, other):
        month = account.months["2026-04"]
        assert Amounts(month.tokens, month.nanodollars, month.gpu_ms) == true
    assert len(owed) <= window.SPAN_S + 2


def test_when_it_may_come_again() -> None:
    """The wait that a refusal tells is enough, and a second less is not."""
    account, limits = Account(), Limits(tokens_per_minute=100)
    for second, tokens in ((0, 60), (10, 30), (20, 10)):
        assert isinstance(ask(account, limits, Claim(Amounts(tokens=tokens)), NOW + second), Change)
    refused = ask(account, limits, Claim(Amounts(tokens=70)), NOW + 30)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s is not None
    early = ask(account, limits, Claim(Amounts(tokens=70)), NOW + 30 + refused.retry_after_s - 1)
    assert isinstance(early, Refused)
    assert isinstance(ask(account, limits, Claim(Amounts(tokens=70)), NOW + 30 + refused.retry_after_s), Change)


def test_what_is_more_than_the_limit_alone_never_may() -> None:
    """No waiting helps."""
    refused = ask(Account(), Limits(tokens_per_minute=100), Claim(Amounts(tokens=101)), NOW)
    assert refused == Refused("tokens", 100, 0, 101, None)


def test_the_month_ends() -> None:
    """A quota is there again with the next month, and a request that ends then is charged to its own."""
    account, limits = Account(), Limits(dollars_per_month=1.0)
    granted = ask(account, limits, Claim(Amounts(nanodollars=NANO)), NOW)
    assert isinstance(granted, Change)
    refused = ask(account, limits, Claim(Amounts(nanodollars=1)), NOW)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == month_ends_in_s(NOW) == 14.5 * 86_400
    later = NOW + month_ends_in_s(NOW)
    assert isinstance(ask(account, limits, Claim(Amounts(nanodollars=NANO)), later), Change)
    for change in settle(granted, Amounts(nanodollars=-NANO // 2), 0, later):
        apply(account, change, later)
    assert [account.months[name].nanodollars for name in ("2026-04", "2026-05")] == [NANO // 2, NANO]


def test_what_costs_nothing_goes_on() -> None:
    """An answer of a tier without a price needs no dollars, even when all are spent."""
    account, limits = Account(), Limits(dollars_per_month=0.0, gpu_hours_per_month=0.0)
    assert isinstance(ask(account, limits, Claim(Amounts(tokens=5)), NOW), Change)
    assert isinstance(ask(account, limits, Claim(Amounts(nanodollars=1)), NOW), Refused)


@pytest.mark.parametrize("lead", [-3.0, 3.0, 4_000.0])
def test_clocks_that_differ(lead: float) -> None:
    """Another replica's clock, a little or altogether wrong, neither frees what counts nor blocks for ever."""
    account, limits = Account(), Limits(requests_per_minute=1)
    assert isinstance(ask(account, limits, Claim(Amounts()), NOW + lead), Change)
    if abs(lead) < 10:
        assert isinstance(ask(account, limits, Claim(Amounts()), NOW + 50), Refused)
    assert isinstance(ask(account, limits, Claim(Amounts()), NOW + 66), Change)


def test_levels() -> None:
    """What is left, and when all of it is there again."""
    account, limits = Account(), Limits(requests_per_minute=5, tokens_per_minute=100)
    ask(account, limits, Claim(Amounts(tokens=30)), NOW)
    found = levels(account, limits, NOW + 10)
    assert found.requests is not None
    assert found.tokens is not None
    assert (found.requests.remaining, found.tokens.remaining) == (4, 70)
    assert found.tokens.reset_s == 51
    assert levels(account, Limits(), NOW).requests is None
