"""A collector of OpenTelemetry's traces: takes OTLP as protobuf over HTTP, in a thread of its own, and keeps spans."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Seen:
    """A span as it arrived; ids are hex."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    """Empty for a root."""
    kind: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    links: tuple[tuple[str, str], ...]
    """(trace, span) of each."""
    failed: bool
    instance: str
    """Of the process that made it."""


@dataclass
class Collector:
    """What came so far."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """As they were sent."""
    headers: list[dict[str, str]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Keep the spans of one export."""
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            _seen(_facts(resource.resource.attributes), span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self.changed:
            self.bodies.append(body)
            self.headers.append(headers)
            self.spans += found
            self.changed.notify_all()

    def wait(self, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
        """Wait until what came is enough; fails with what did come."""
        with self.changed:
            if not self.changed.wait_for(lambda: enough(self.spans), PATIENCE_S):
                told = "\n".join(f"{span.trace} {span.service}: {span.name} < {span.parent}" for span in self.spans)
                raise AssertionError(f"the spans did not come; there are:\n{told}")
            return list(self.spans)

    def trace_of(self, request_id: str, *names: str) -> "Trace":
        """Wait until the trace of a request is there, with spans of these names.

        Args:
            request_id: of the response's header.
            names: "service: span", each.
        """

        def of(spans: list[Seen]) -> list[Seen]:
            ids = {span.trace for span in spans if span.attributes.get("stream.request_id") == request_id}
            return [span for span in spans if span.trace in ids]

        def enough(spans: list[Seen]) -> bool:
            found = of(spans)
            told = {f"{span.service}: {span.name}" for span in found}
            return set(names) <= told and {s.parent for s in found if s.parent} <= {s.span for s in found}

        return Trace(of(self.wait(enough)))


@dataclass
class Trace:
    """The spans of one request."""

    spans: list[Seen]

    def __post_init__(self) -> None:
        assert len({span.trace for span in self.spans}) == 1
        self.by_id = {span.span: span for span in self.spans}

    def one(self, name: str) -> Seen:
        """The only span of a name, "service: span"."""
        (found,) = self.all(name)
        return found

    def all(self, name: str) -> list[Seen]:
        """All spans of a name."""
        return [span for span in self.spans if f"{span.service}: {span.name}" == name]

    def way(self, span: Seen) -> list[str]:
        """The names from the root to a span."""
        way = [f"{span.service}: {span.name}"]
        while span.parent:
            span = self.by_id[span.parent]
            way.insert(0, f"{span.service}: {span.name}")
        return way


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """Collect until the block ends."""
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.take(self.rfile.read(int(self.headers["content-length"])), dict(self.headers))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


def _seen(resource: dict[str, Any], span: Any) -> Seen:
    return Seen(
        service=resource["service.name"].removeprefix("stream-"),
        name=span.name,
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=span.kind,
        attributes=_facts(span.attributes),
        events={event.name: _facts(event.attributes) for event in span.events},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        instance=resource["service.instance.id"],
    )


def _facts(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
