"""The span of each candidate that is asked: from the first byte sent to it until its answer, or failure, is over."""

from stream_core import gen_ai, tracing
from stream_core.errors import StreamError
from stream_core.openai.chunks import Usage
from stream_core.trace_context import CURRENT, TraceContext
from stream_core.tracing import Kind, Span


class Attempts:
    """The open spans, by request; requests that are not traced have none."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[Span, TraceContext | None]] = {}

    def begin(self, request_id: bytes, path: str, tier: str, model: str) -> None:
        """Begin one below the request's span, and make it the current one of this task: what it causes is below it.

        Args:
            request_id: 16 bytes.
            path: of the engine's API, without /v1.
            tier: that is asked.
            model: likewise.
        """
        above = CURRENT.get()
        if above is None or not above.sampled or not tracing.enabled():
            return
        operation = gen_ai.operation(path)
        facts = {
            gen_ai.OPERATION: operation,
            gen_ai.PROVIDER: tier,
            gen_ai.REQUEST_MODEL: model,
            gen_ai.TIER: tier,
        }
        span = tracing.begin(f"{operation} {model}", kind=Kind.CLIENT, attributes=facts)
        self._open[request_id] = span, above
        CURRENT.set(span.context)

    def failed(self, request_id: bytes, error: StreamError) -> None:
        """End one that failed before its first bytes: the next candidate's stands beside it."""
        if (found := self._open.pop(request_id, None)) is not None:
            span, above = found
            span.end(tracing.fault_of(error))
            CURRENT.set(above)

    def ended(self, request_id: bytes, usage: Usage | None) -> None:
        """End the one that answered, however its answer ended."""
        if (found := self._open.pop(request_id, None)) is not None:
            span, above = found
            if usage is not None:
                span.set(gen_ai.INPUT_TOKENS, usage.prompt_tokens)
                span.set(gen_ai.OUTPUT_TOKENS, usage.completion_tokens)
            span.end()
            CURRENT.set(above)
