"""Whether a line that failed is asked again. Pure.

what happened                                          | then
-------------------------------------------------------+-----------------------------------------------
nobody there, busy, shutting down (503, 429)           | again, until the batch expires
lost on the way, too slow, an engine's 5xx             | again, `MOST_TRIES` deliveries at most
anything else                                          | it is the line's answer
"""

from typing import Final

from stream_core.errors import LimitExceeded, StreamError, UpstreamRejected, UpstreamUnavailable

MOST_TRIES: Final = 8
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_TOO_MANY: Final = 429
_TIMEOUT: Final = 408


def is_pushback(error: StreamError) -> bool:
    """Whether it says that there is no room at the moment."""
    if isinstance(error, UpstreamRejected):
        return error.status == _TOO_MANY
    return isinstance(error, UpstreamUnavailable | LimitExceeded)


def pause_s(error: StreamError, delivery: int) -> float | None:
    """Tell after which pause a line is asked again; None: it is not.

    Args:
        error: how it failed.
        delivery: how often the line was taken from the queue, from 1.
    """
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(delivery - 1, 10), _LONGEST_PAUSE_S)
    if is_pushback(error):
        return pause
    passing = error.retryable or (isinstance(error, UpstreamRejected) and error.status == _TIMEOUT)
    return pause if passing and delivery < MOST_TRIES else None
