"""Spans: one for each step of a request that somebody might wait for, never one for each token.

    begin(...)   a span below the current one, or below one that came from another program; the caller ends it
    step(...)    the same as a block; what is called in it is below it
    root(...)    the first span of a request: here it is decided whether the trace is recorded

Without an endpoint nothing is recorded, OpenTelemetry's SDK is not even imported, and a span is an object that does
nothing; a trace that came from outside is passed on all the same. Who may be told what: attributes are names of tiers
and models, numbers, ids and kinds of faults (`gen_ai` has the names), never what was asked or answered.
"""

import asyncio
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from stream_core import trace_context
from stream_core.errors import ConfigError, StreamError
from stream_core.settings import TraceSettings, read_secret
from stream_core.trace_context import CURRENT, TraceContext

if TYPE_CHECKING:
    from stream_core.otlp import Recorder

_log = logging.getLogger(__name__)
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_LAST_SPANS_S: Final = 3.0
"""What an endpoint gets to take the last spans when the program ends."""

Value = str | int | float | bool
Attributes = Mapping[str, Value]


class Kind(Enum):
    """OpenTelemetry's kinds of spans."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class Recording(Protocol):
    """What the SDK's span can do, as far as it is used here."""

    def set_attribute(self, key: str, value: Value) -> None:
        """Note a fact."""
        ...

    def add_event(self, name: str, attributes: Attributes | None = None, timestamp: int | None = None) -> None:
        """Note what happened, and when: unix nanoseconds."""
        ...

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Say how it went."""
        ...

    def end(self, end_time: int | None = None) -> None:
        """End it."""
        ...


class Span:
    """A step of a request; where the trace is not recorded it does nothing.

    Attributes:
        context: its place, for what comes below it; None outside of any trace.
    """

    __slots__ = ("_recording", "context")

    def __init__(self, context: TraceContext | None, recording: Recording | None = None) -> None:
        self.context = context
        self._recording = recording

    @property
    def recorded(self) -> bool:
        """Whether somebody will see it: only then is it worth to gather attributes."""
        return self._recording is not None

    def set(self, name: str, value: Value) -> None:
        """Note a fact."""
        if self._recording is not None:
            self._recording.set_attribute(name, value)

    def event(self, name: str, attributes: Attributes | None = None, *, at_ns: int | None = None) -> None:
        """Note what happened.

        Args:
            name: of a closed set.
            attributes: facts.
            at_ns: unix nanoseconds; None: now.
        """
        if self._recording is not None:
            self._recording.add_event(name, attributes, at_ns)

    def end(self, fault: str = "") -> None:
        """End it; what is told afterwards is lost.

        Args:
            fault: the error's code, from a closed set; empty when all went well.
        """
        recording, self._recording = self._recording, None
        if recording is not None:
            if fault:
                from opentelemetry.trace import StatusCode  # noqa: PLC0415  (imported already where a span is recorded)

                recording.set_attribute("error.type", fault)
                recording.set_status(StatusCode.ERROR)
            recording.end()


class _Source:
    """Where this process' spans go; one for a process, like its log."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.ratio = 0.0


_source: Final = _Source()


def configure(service: str, settings: TraceSettings, *, required: bool = True) -> None:
    """Begin to record, if there is an endpoint.

    Args:
        service: the program's name, on every span.
        settings: the operator's.
        required: whether a program that can't trace as it is told does not start; else it says so and goes on.

    Raises:
        ConfigError: the endpoint won't do, its headers can't be read, or the SDK is not installed.
    """
    endpoint = settings.endpoint or _usual_endpoint()
    if not endpoint:
        return
    try:
        _source.recorder = _recorder(service, endpoint, settings)
    except ConfigError as error:
        if required:
            raise
        _log.warning("no tracing: %s", error.message)
        return
    _source.ratio = settings.sample_ratio
    _log.info("tracing", extra={"endpoint": endpoint, "sample_ratio": settings.sample_ratio})


def _usual_endpoint() -> str:
    """Read OpenTelemetry's own variables: the one for traces is a whole URL, the other one gets their path."""
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "") or (f"{base}/v1/traces" if base else "")


def _recorder(service: str, endpoint: str, settings: TraceSettings) -> "Recorder":
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise ConfigError("holds a user or a password; put a token into headers_file", param="traces.endpoint")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        words = f"{endpoint[:200]!r}: https:// is wanted, or http:// on this machine's own address"
        raise ConfigError(words, param="traces.endpoint")
    headers = _headers(read_secret(settings.headers_file)) if settings.headers_file else {}
    try:
        from stream_core.otlp import Recorder  # noqa: PLC0415  (half a second that only tracing pays)
    except ImportError as error:
        words = f"it is set, and {error.name} is not installed: install the extra `otel`"
        raise ConfigError(words, param="traces.endpoint") from error
    return Recorder(service, endpoint, headers=headers, ca_file=settings.ca_file)


async def shutdown() -> None:
    """Send the last spans and stop recording."""
    recorder, _source.recorder = _source.recorder, None
    if recorder is not None:
        await asyncio.to_thread(recorder.shutdown, _LAST_SPANS_S)


def enabled() -> bool:
    """Whether spans of this process are recorded at all."""
    return _source.recorder is not None


def root(
    name: str, parent: TraceContext | None, *, attributes: Attributes | None = None, at_ns: int | None = None
) -> Span:
    """Begin a request's first span here: below the caller's own, or a new trace of which a share is recorded.

    Args:
        name: of the span.
        parent: what the caller sent; its decision whether to record is kept.
        attributes: facts.
        at_ns: when the request came, unix nanoseconds.
    """
    if parent is not None or _source.recorder is None:
        return begin(name, kind=Kind.SERVER, parent=parent, attributes=attributes, at_ns=at_ns)
    if random.random() >= _source.ratio:  # noqa: S311  (a share, not a secret)
        return Span(trace_context.unrecorded())
    return _record(name, Kind.SERVER, None, attributes, (), at_ns)


def begin(
    name: str,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: TraceContext | None = None,
    attributes: Attributes | None = None,
    links: Sequence[TraceContext] = (),
    at_ns: int | None = None,
) -> Span:
    """Begin a span below another one; end it whatever happens.

    Args:
        name: of the span.
        kind: of the span.
        parent: None takes the current one; without any, or below one that is not recorded, nothing is.
        attributes: facts.
        links: other places that have to do with it, in other traces.
        at_ns: when it began, unix nanoseconds; None: now.
    """
    parent = parent or CURRENT.get()
    if parent is None or not parent.sampled or _source.recorder is None:
        return Span(parent)
    return _record(name, kind, parent, attributes, links, at_ns)


def alone(name: str, *, kind: Kind, attributes: Attributes) -> Span:
    """Begin a trace of its own that is always recorded: of something rare that requests link to."""
    return _record(name, kind, None, attributes, (), None)


def _record(
    name: str,
    kind: Kind,
    parent: TraceContext | None,
    attributes: Attributes | None,
    links: Sequence[TraceContext],
    at_ns: int | None,
) -> Span:
    if _source.recorder is None:
        return Span(parent)
    return Span(*_source.recorder.start(name, kind.value, parent, attributes, links, at_ns))


@contextmanager
def step(name: str, *, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Iterator[Span]:
    """Begin a span below the current one, make it the current one, and end it with the block."""
    span = begin(name, kind=kind, attributes=attributes)
    if not span.recorded:
        yield span
        return
    token = CURRENT.set(span.context)
    fault = ""
    try:
        yield span
    except BaseException as error:
        fault = fault_of(error)
        raise
    finally:
        CURRENT.reset(token)
        span.end(fault)


def fault_of(error: BaseException) -> str:
    """Name an error for a span: its code or its class, never its words, which may quote somebody."""
    return error.code if isinstance(error, StreamError) else type(error).__name__


def _headers(text: str) -> dict[str, str]:
    """Read `name=value` lines.

    Raises:
        ConfigError: a line that is none.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if not (equals and name.strip()):
            raise ConfigError(f"traces.headers_file: line {number} is not `name=value`", param="traces.headers_file")
        found[name.strip().lower()] = value.strip()
    return found
