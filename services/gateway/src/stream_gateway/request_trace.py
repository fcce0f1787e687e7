"""The gateway's span of one request: begun when it is known who asks, so that strangers fill nobody's storage."""

from collections.abc import Mapping
from typing import Any, Final

from stream_core import gen_ai, trace_context, tracing
from stream_core.trace_context import CURRENT, TraceContext
from stream_core.tracing import Span
from stream_gateway.content import Said, asked
from stream_gateway.phases import Phases
from stream_gateway.pipeline import Trail
from stream_gateway.stream import Outcome

_GONE: Final = "client_gone"
_NOTHING: Final = Span(None)
_MS: Final = 1000.0


class RequestTrace:
    """One request's span, and what is told of it."""

    __slots__ = ("_span",)

    def __init__(self) -> None:
        self._span = _NOTHING

    def begin(self, name: str, route: str, request_id: str, parent: TraceContext | None, phases: Phases) -> None:
        """Begin it, and make it the current one of this task.

        Args:
            name: of the span.
            route: the path that was asked.
            request_id: hex.
            parent: the caller's own place in a trace.
            phases: begun when the request came.
        """
        self._span = tracing.root(name, parent, at_ns=phases.began_ns)
        if self._span.recorded:
            self._span.set(gen_ai.METHOD, "POST")
            self._span.set(gen_ai.ROUTE, route)
            self._span.set(gen_ai.REQUEST_ID, request_id)
        CURRENT.set(self._span.context)

    @property
    def recorded(self) -> bool:
        """Whether somebody will see it."""
        return self._span.recorded

    def show(self, body: Mapping[str, Any]) -> Said:
        """Tell what was asked; the caller has made sure that this may be.

        Returns:
            What is to be told of the answer.
        """
        self._span.set(gen_ai.INPUT_MESSAGES, asked(body.get("messages", body.get("prompt", body.get("input")))))
        return Said()

    def answered(self, said: Said) -> None:
        """Tell what was answered."""
        self._span.set(gen_ai.OUTPUT_MESSAGES, said.text())

    def first_token(self, phases: Phases) -> None:
        """Tell where the time went until the answer began: one event for each phase, at its end."""
        if not self._span.recorded:
            return
        at = phases.began_ns
        for phase, spent in phases.laps:
            at += int(spent * 1e9)
            self._span.event(phase, {gen_ai.DURATION_MS: round(spent * _MS, 3)}, at_ns=at)
        self._span.event(gen_ai.FIRST_TOKEN, {gen_ai.DURATION_MS: round((at - phases.began_ns) / 1e6, 3)}, at_ns=at)

    def end(self, trail: Trail, outcome: Outcome, ended: str, *, stream: bool) -> None:
        """Tell what became of the request."""
        span, self._span = self._span, _NOTHING
        if not span.recorded:
            return
        span.set(gen_ai.STREAMED, stream)
        span.set(gen_ai.STATUS, outcome.status)
        span.set(gen_ai.ENDED, ended)
        for name, value in (
            (gen_ai.TIER, trail.tier),
            (gen_ai.CLUSTER, trail.cluster),
            (gen_ai.CONTEXT, trail.context),
        ):
            if value:
                span.set(name, value)
        if trail.model:
            span.set(gen_ai.RESPONSE_MODEL, trail.model)
        span.end("" if ended in {"complete", _GONE} else ended)


def parent_of(fields: Mapping[bytes, bytes]) -> TraceContext | None:
    """Read the caller's trace context; https://www.w3.org/TR/trace-context/."""
    names = (trace_context.TRACEPARENT, trace_context.TRACESTATE)
    return trace_context.read({name: fields.get(name.encode("ascii"), b"").decode("latin-1") for name in names})
