"""What the pipeline asks of a tier, whichever kind it is: `http` (local engine, cloud) or `hpc` (sealed channel)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that a tier offers at this moment."""

    id: str
    """The name users see, without the tier's prefix."""
    context_window: int
    """Tokens, prompt and answer together."""
    modalities: frozenset[str] = frozenset({"text"})
    capabilities: frozenset[str] = frozenset()
    demo: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one model of one tier."""

    request_id: bytes
    """16 bytes; its hex form is the `x-request-id` of the client's answer."""
    path: str
    """Of the engine's API, without the base URL's /v1: "/chat/completions"."""
    model: str
    """`OfferedModel.id`; the backend knows the engine's own name and writes it into the body."""
    request: Mapping[str, object]
    """The client's request, every field as it was sent; "model" is replaced by the backend."""
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    """Trace context to pass on."""


class Answer(Protocol):
    """An answer that has begun. Iterate it to its end, or close it; both free everything on every hop.

    Iteration yields batches of chunks: the engine's bytes, verbatim. For `text/event-stream` a chunk is one whole
    event with its blank line, or a piece of a very long one; else a piece of the body. Asking for the next batch
    says that the last one was written and drained: this is the backpressure.

    Iteration raises `StreamBroken`, `UpstreamTimeout` or another `RemoteError` when the answer can't be completed;
    it ends normally only when the engine's answer was complete.
    """

    content_type: str

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Batches of chunks."""
        ...

    async def aclose(self) -> None:
        """Stop: if the answer is not complete, the engine is told to abort at once. May be called twice."""
        ...


class Backend(Protocol):
    """One tier."""

    def models(self) -> list[OfferedModel]:
        """What it offers now; the first is its default. No I/O."""
        ...

    def unavailable(self, model: str) -> str | None:
        """None when a request may be tried, else the reason in words. No I/O: judged by what is known already."""
        ...

    def note(self) -> str:
        """What a client should know of this tier's state, for the reason it is told; mostly nothing. No I/O."""
        ...

    async def open(self, call: Call) -> Answer:
        """Send the request and wait until the engine has accepted it (HTTP status 200).

        Raises:
            UpstreamRejected: the engine refused the request itself (4xx): passed on to the client as it is.
            UpstreamUnavailable: nobody there, busy, 5xx before the answer began: another candidate may be tried.
            UpstreamTimeout: no sign of life within the tier's limit.
        """
        ...

    async def start(self) -> None:
        """Connect and begin to watch health; returns at once also when the other side is away."""
        ...

    async def aclose(self) -> None:
        """Release everything."""
        ...
