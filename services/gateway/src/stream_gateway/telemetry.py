"""One log line per request: who, where to, how long, how much; never what was said."""

import logging
import time

from stream_gateway.meters import count_request
from stream_gateway.phases import Phases
from stream_gateway.pipeline import Trail
from stream_gateway.stream import Outcome

_log = logging.getLogger("stream_gateway.request")


class Stopwatch:
    """Measures one request."""

    __slots__ = ("_first", "_started")

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first: float | None = None

    def first_token(self) -> None:
        """The first bytes of the answer are there."""
        self._first = time.perf_counter()

    @property
    def first_token_ms(self) -> float | None:
        """From the request's arrival to the answer's first bytes; None before them."""
        return None if self._first is None else round((self._first - self._started) * 1000, 2)

    @property
    def total_ms(self) -> float:
        """Since the request's arrival."""
        return round((time.perf_counter() - self._started) * 1000, 2)


def log_request(
    request_id: str,
    *,
    key: str,
    stream: bool,
    trail: Trail,
    outcome: Outcome,
    stopwatch: Stopwatch,
    ended: str,
    phases: Phases,
) -> None:
    """Count it and write the line.

    Args:
        request_id: hex.
        key: id of the API key, empty when there was none.
        stream: whether the client asked for a stream.
        trail: where it went.
        outcome: what was sent.
        stopwatch: begun when the request arrived.
        ended: "complete", "client_gone", or the code of the error.
        phases: of the time to the first bytes.
    """
    count_request(trail, outcome, phases, first_token_ms=stopwatch.first_token_ms, ended=ended)
    if not _log.isEnabledFor(logging.INFO):
        return
    usage = outcome.usage
    _log.info(
        "request",
        extra={
            "request_id": request_id,
            "key": key,
            "tier": trail.tier,
            "model": trail.model,
            "cluster": trail.cluster,
            "reason": trail.reason,
            "stream": stream,
            "status": outcome.status,
            "ended": ended,
            "first_token_ms": stopwatch.first_token_ms,
            "total_ms": stopwatch.total_ms,
            "bytes_out": outcome.bytes_out,
            "prompt_tokens": usage.prompt_tokens if usage else None,
            "completion_tokens": usage.completion_tokens if usage else None,
            "charged_tokens": outcome.spent.amounts.tokens,
            "dollars": round(outcome.spent.dollars, 6),
        },
    )
