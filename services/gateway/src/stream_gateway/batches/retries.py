"""Whether a line that failed is asked again. Pure.

what happened                                          | then
-------------------------------------------------------+-----------------------------------------------
nobody there, busy, shutting down (503, 429)           | again soon, until the batch expires: another replica may
                                                       | have room, and the one that had none rests (`throttle.Rest`)
its owner has used up a limit of a minute              | again when the limit says, until the batch expires
lost on the way, too slow, an engine's 5xx             | again, `MOST_TRIES` times at most
anything else                                          | it is the line's answer
"""

from typing import Final

from stream_core.errors import LimitExceeded, StreamError, UpstreamRejected, UpstreamUnavailable
from stream_gateway.limits.refusals import RateExceeded, SumUnknown

MOST_TRIES: Final = 8
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0
_SOON_S: Final = 1.0
_TOO_MANY: Final = 429
_TIMEOUT: Final = 408


def is_pushback(error: StreamError) -> bool:
    """Whether it says that there is no room at the moment."""
    if isinstance(error, UpstreamRejected):
        return error.status == _TOO_MANY
    return isinstance(error, UpstreamUnavailable | LimitExceeded) and not isinstance(error, RateExceeded)


def pause_s(error: StreamError, tries: int) -> float | None:
    """Tell after which pause a line is asked again; None: it is not.

    Args:
        error: how it failed.
        tries: how often it was lost so far, this time included.
    """
    if is_pushback(error) or isinstance(error, SumUnknown):
        return _SOON_S
    if isinstance(error, RateExceeded):
        return min(max(_SOON_S, error.retry_after_s), _LONGEST_PAUSE_S)
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_S)
    passing = error.retryable or (isinstance(error, UpstreamRejected) and error.status == _TIMEOUT)
    return pause if passing and tries < MOST_TRIES else None
