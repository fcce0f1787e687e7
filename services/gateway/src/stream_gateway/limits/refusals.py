"""What a client hears when a limit bites: whose limit, which, how much of it is used. Pure.

RateExceeded        429 rate_limit_exceeded: may come again, `retry_after_s` says when
QuotaExceeded       429 insufficient_quota: nothing is left of this month
LargerThanLimit     413 request_too_large: this request alone is more than the limit
SumUnknown          503 limits_unavailable: what was used this month can't be asked for, so nothing is spent
"""

from typing import ClassVar, Final

from stream_core.errors import LimitExceeded, LocalError, RemoteError, RequestTooLarge
from stream_gateway.accounts.principal import Subject
from stream_gateway.limits.account import Refused, Resource


class RateExceeded(LimitExceeded):
    """A limit of a minute, or of requests at once."""

    type = "requests"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TokenRateExceeded(RateExceeded):
    """The one of tokens."""

    type = "tokens"


class QuotaExceeded(LocalError):
    """A limit of a month."""

    code = "insufficient_quota"
    type = "insufficient_quota"
    status_hint = 429
    retryable = False

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LargerThanLimit(RequestTooLarge):
    """The request alone is more than what may be had."""


class SumUnknown(RemoteError):
    """The broker that keeps the sums is away."""

    code: ClassVar[str] = "limits_unavailable"
    status_hint = 503


_WORDS: Final[dict[Resource, tuple[str, str]]] = {
    "requests": ("requests per minute", "{:,.0f}"),
    "tokens": ("tokens per minute", "{:,.0f}"),
    "streams": ("requests at once", "{:,.0f}"),
    "tokens_month": ("tokens per month", "{:,.0f}"),
    "dollars_month": ("dollars per month for the cloud", "${:,.4f}"),
    "gpu_month": ("GPU hours per month", "{:,.4f}"),
}


def refusal(subject: Subject, refused: Refused) -> RateExceeded | QuotaExceeded | LargerThanLimit:
    """Say which limit of whom a request meets.

    Args:
        subject: whose limit.
        refused: why.
    """
    name, form = _WORDS[refused.resource]
    limit, used, wanted = (form.format(number) for number in (refused.limit, refused.used, refused.wanted))
    whose = f"the {subject.kind} {subject.id!r}"
    if refused.retry_after_s is None and refused.wanted > refused.limit > 0:
        return LargerThanLimit(f"the request may need {wanted} {name}, and {whose} has {limit}")
    said = f"{whose} has reached its limit of {limit} {name}: {used} used, {wanted} asked for"
    if refused.resource.endswith("_month"):
        return QuotaExceeded(said, retry_after_s=refused.retry_after_s or 0.0)
    wait = 60.0 if refused.retry_after_s is None else refused.retry_after_s
    kind = TokenRateExceeded if refused.resource == "tokens" else RateExceeded
    return kind(f"{said}; try again in {max(1.0, wait):.0f} s", retry_after_s=wait)


def prompt_refusal(subject: Subject, tokens: int) -> LargerThanLimit:
    """Say that a prompt is too long for a subject's limit."""
    limit = subject.limits.prompt_tokens or 0
    whose = f"the {subject.kind} {subject.id!r}"
    return LargerThanLimit(f"the prompt has {tokens:,} tokens, and {whose} may send {limit:,} in one request")
