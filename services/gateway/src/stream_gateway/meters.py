"""What the gateway counts of its requests, for Prometheus. Labels are names of the deployment and closed sets."""

import itertools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from stream_core.metrics import FINE_SECONDS, Counter, Gauge, Histogram, Series, describe_process, single
from stream_gateway import __version__
from stream_gateway.backends.registry import Registry
from stream_gateway.lifeline import Running
from stream_gateway.phases import Phases
from stream_gateway.pipeline import Trail
from stream_gateway.stream import Outcome

_PLACE: Final = ("tier", "model", "cluster")
_REQUESTS: Final = Counter("stream_requests_total", "Requests that are over, by how they ended.", (*_PLACE, "ended"))
_TOKENS: Final = Counter("stream_tokens_total", "Tokens as the engines told them.", (*_PLACE, "kind"))
_FIRST: Final = Histogram("stream_first_token_seconds", "From a request to its answer's first bytes.", _PLACE)
_PHASES: Final = Histogram("stream_first_token_phase_seconds", "Parts of the time to the first bytes.", ("phase",))
_QUEUE: Final = Histogram("stream_queue_wait_seconds", "How long requests waited for a worker.", ("tier", "model"))
_PACE: Final = Histogram(
    "stream_inter_token_seconds", "Between two events of a stream; of each eighth answer.", _PLACE, FINE_SECONDS
)
_LIMITS: Final = Counter("stream_limits_hit_total", "Requests that a limit refused, by the error's code.", ("limit",))
_DOLLARS: Final = Counter("stream_cost_dollars_total", "Dollars that the cloud asks for answers.", ("tier", "model"))
_GPU: Final = Counter("stream_gpu_seconds_total", "GPU time that answers are charged.", _PLACE)
_REFUSED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_QUEUED: Final = "queue"
_WATCHED: Final = 8
"""One of so many answers has its pace measured: it costs a few percent of a token, and a share tells the same."""
_numbers: Final = itertools.count()


class Pace:
    """Measures the time between the events of one stream: once for each batch, whatever is in it."""

    __slots__ = ("_last", "_series")

    def __init__(self, series: Series) -> None:
        self._series = series
        self._last = time.perf_counter()

    def took(self, events: int) -> None:
        """A batch of so many events was there."""
        now = time.perf_counter()
        self._series.observe((now - self._last) / events, events)
        self._last = now


def pace_of(trail: Trail) -> Pace | None:
    """Begin to measure an answer's pace, if it is one of those that are."""
    if next(_numbers) % _WATCHED:
        return None
    return Pace(_PACE.of(trail.tier, trail.model, trail.cluster))


def count_request(trail: Trail, outcome: Outcome, phases: Phases, *, first_token_ms: float | None, ended: str) -> None:
    """Count a request that is over.

    Args:
        trail: where it went.
        outcome: what was sent.
        phases: of its time to the first bytes.
        first_token_ms: that time; None when there were none.
        ended: "complete", "client_gone", or the code of the error.
    """
    place = trail.tier, trail.model, trail.cluster
    _REQUESTS.add(1, *place, ended)
    if outcome.usage is not None:
        _TOKENS.add(outcome.usage.prompt_tokens, *place, "prompt")
        _TOKENS.add(outcome.usage.completion_tokens, *place, "completion")
    if dollars := outcome.spent.dollars:
        _DOLLARS.add(dollars, trail.tier, trail.model)
    if gpu_ms := outcome.spent.amounts.gpu_ms:
        _GPU.add(gpu_ms / 1000, *place)
    if outcome.status in _REFUSED:
        _LIMITS.add(1, ended)
    if first_token_ms is not None:
        _FIRST.of(*place).observe(first_token_ms / 1000)
        for phase, seconds in phases.seconds().items():
            _PHASES.of(phase).observe(seconds)
            if phase == _QUEUED:
                _QUEUE.of(trail.tier, trail.model).observe(seconds)


def watch(running: Running, registry: Registry, waited_s: Callable[[], float]) -> None:
    """Let be read what this gateway has at the moment.

    Args:
        running: its requests.
        registry: its tiers.
        waited_s: how long the request that waits longest for its first bytes has waited.
    """
    describe_process("gateway", __version__)
    Gauge("stream_gateway_open_streams", "Requests under way, streamed or not.", single(lambda: len(running)))
    Gauge("stream_gateway_longest_wait_seconds", "Of a request without first bytes, the longest.", single(waited_s))

    def waiting() -> float:
        return registry.waiting

    def tiers() -> dict[tuple[str, ...], float]:
        views = registry.current.view()
        return {(tier.name,): float(any(view.standing.hot for view in tier.models)) for tier in views}

    Gauge("stream_gateway_waiting_requests", "Requests that wait for a worker.", single(waiting))
    Gauge("stream_tier_up", "Whether any model of a tier answers now.", tiers, ("tier",))
