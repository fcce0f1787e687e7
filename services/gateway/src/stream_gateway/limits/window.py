"""What was used within the last minute, in buckets of one second. Pure: the clock is an argument.

A bucket counts until all of it is more than a minute ago, so in no 60 seconds, wherever they begin, more was used than
these sums say: a minute of the clock, which begins anew, would let twice the limit pass around its end.
"""

from typing import Final

SPAN_S: Final = 60
Buckets = dict[int, int]
"""Unix second -> how much."""


def prune(buckets: Buckets, now: float) -> None:
    """Forget what is over, and what only a clock that was wrong can have written."""
    for second in [second for second in buckets if not now - 1 - SPAN_S < second <= now + SPAN_S]:
        del buckets[second]


def used(buckets: Buckets, now: float) -> int:
    """Add up what counts at a moment."""
    return sum(amount for second, amount in buckets.items() if second + 1 + SPAN_S > now)


def room_in_s(buckets: Buckets, now: float, most: int) -> float:
    """Tell in how many seconds no more than `most` will count, if nothing comes meanwhile."""
    left = used(buckets, now)
    for second in sorted(buckets):
        if left <= most:
            break
        if second + 1 + SPAN_S > now:
            left -= buckets[second]
            now_free = second + 1 + SPAN_S
            if left <= most:
                return now_free - now
    return 0.0


def empty_in_s(buckets: Buckets, now: float) -> float:
    """Tell in how many seconds nothing will count."""
    return max((second + 1 + SPAN_S - now for second, amount in buckets.items() if amount), default=0.0)


def add(buckets: Buckets, second: int, amount: int) -> None:
    """Count something; less than nothing never counts."""
    total = buckets.get(second, 0) + amount
    if total > 0:
        buckets[second] = total
    else:
        buckets.pop(second, None)
