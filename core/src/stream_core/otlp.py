"""OpenTelemetry's SDK behind `tracing`: the only module that imports it, and only where an endpoint is configured.

Spans are sent in batches by a thread of the SDK, as protobuf over HTTP (OTLP); when the endpoint is away they are
dropped and counted, never waited for.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from stream_core.ids import new_id, to_hex
from stream_core.telemetry import Once, OnceHandler
from stream_core.trace_context import TraceContext

_TIMEOUT_S: Final = 5.0
_KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_log = logging.getLogger(__name__)


class Recorder:
    """Records the spans of one process.

    Args:
        service: the program's name.
        endpoint: where OTLP is taken over HTTP, a whole URL.
        headers: sent along, a collector's token say.
        ca_file: PEM bundle for https; None takes the system's.
    """

    def __init__(self, service: str, endpoint: str, *, headers: Mapping[str, str], ca_file: Path | None) -> None:
        _quieten()
        session = requests.Session()
        # An institution's proxy leads out of the house; what is on this machine must never be sent there in clear.
        session.trust_env = endpoint.startswith("https:")
        exporter = OTLPSpanExporter(
            endpoint=endpoint,
            headers=dict(headers),
            timeout=_TIMEOUT_S,
            certificate_file=str(ca_file) if ca_file else None,
            session=session,
        )
        self._processor = BatchSpanProcessor(exporter)
        # It is decided elsewhere (`tracing.root`, or the caller): whatever comes here is recorded.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {
                    "service.name": f"stream-{service}",
                    "service.namespace": "stream",
                    "service.instance.id": to_hex(new_id()),
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("stream")

    def start(
        self,
        name: str,
        kind: str,
        parent: TraceContext | None,
        attributes: Mapping[str, Any] | None,
        links: Sequence[TraceContext],
        at_ns: int | None,
    ) -> tuple[TraceContext, Span]:
        """Begin a span; see `tracing.begin`."""
        above = set_span_in_context(NonRecordingSpan(_of(parent))) if parent else set_span_in_context(_NOBODY)
        span = self._tracer.start_span(
            name,
            context=above,
            kind=_KINDS[kind],
            attributes=attributes,
            links=[Link(_of(link)) for link in links],
            start_time=at_ns,
        )
        made = span.get_span_context()
        return TraceContext(made.trace_id, made.span_id, sampled=True, state=parent.state if parent else ""), span

    def shutdown(self, within_s: float) -> None:
        """Send what is left, for at most so long; blocks."""
        # The library itself may try for much longer; the thread that does is a daemon and ends with the process.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(within_s)


def _of(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=_SAMPLED, trace_state=state)


_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOBODY: Final = NonRecordingSpan(SpanContext(0, 0, is_remote=False))


def _quieten() -> None:
    """Have the library's own words counted as faults of kind `otlp`: one line a minute, not one for each batch."""
    logger = logging.getLogger("opentelemetry")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.handlers[:] = [_FromThread(OnceHandler(Once(_log), "otlp"))]


class _FromThread(logging.Handler):
    """Brings what a thread says to the event loop that counts; without one, or after its end, it is lost.

    Args:
        handler: gets it there.
    """

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self._handler = handler
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):  # there is none in a tool's main thread
            self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._handler.handle, record)
