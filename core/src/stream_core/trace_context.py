"""Which trace something belongs to: W3C's trace context, read, written, and current in a task. Needs no SDK.

https://www.w3.org/TR/trace-context/. A context is two random ids and a flag; it says nothing of what is asked.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FORBIDDEN_VERSION: Final = "ff"
_SAMPLED: Final = 1
_MAX_STATE: Final = 512
_TRACE_BITS: Final = 128
_SPAN_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace."""

    trace_id: int
    span_id: int
    sampled: bool
    """Whether it is recorded; who began the trace has decided."""
    state: str = ""
    """What other systems passed along."""

    @property
    def trace(self) -> str:
        """The trace's id, 32 hex digits."""
        return f"{self.trace_id:032x}"

    @property
    def span(self) -> str:
        """The span's id, 16 hex digits."""
        return f"{self.span_id:016x}"

    def headers(self) -> dict[str, str]:
        """Write it for the next program: as HTTP headers, gRPC metadata, or inside a sealed envelope."""
        written = {TRACEPARENT: f"00-{self.trace}-{self.span}-{int(self.sampled):02x}"}
        if self.state:
            written[TRACESTATE] = self.state
        return written


CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("stream_trace", default=None)
"""Of this task; tasks that it starts inherit it."""


def read(headers: Mapping[str, str]) -> TraceContext | None:
    """Read what came from another program; None when there is none, or none that is valid."""
    found = _PARENT.fullmatch(headers.get(TRACEPARENT, ""))
    if found is None or found[1] == _FORBIDDEN_VERSION:
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not (trace_id and span_id):
        return None
    state = headers.get(TRACESTATE, "")
    usable = len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return TraceContext(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED), state if usable else "")


def of_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> TraceContext | None:
    """Read a gRPC call's metadata."""
    wanted = {key: value for key, value in metadata or () if key in {TRACEPARENT, TRACESTATE}}
    return read({key: value for key, value in wanted.items() if isinstance(value, str)}) if wanted else None


def unrecorded() -> TraceContext:
    """Begin a trace that nobody records: its id still connects the logs of all programs."""
    return TraceContext(random.getrandbits(_TRACE_BITS) or 1, random.getrandbits(_SPAN_BITS) or 1, sampled=False)


@contextmanager
def current(context: TraceContext | None) -> Iterator[None]:
    """Make a context the current one until the block ends."""
    token = CURRENT.set(context)
    try:
        yield
    finally:
        CURRENT.reset(token)


def outgoing() -> dict[str, str]:
    """Headers that let the next program go on with the current trace; none without one."""
    context = CURRENT.get()
    return {} if context is None else context.headers()


def metadata() -> tuple[tuple[str, str], ...]:
    """Give the same for a gRPC call."""
    return tuple(outgoing().items())
