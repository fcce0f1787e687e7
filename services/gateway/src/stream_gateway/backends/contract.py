"""What the pipeline asks of a tier, whichever kind it is: `http` (local engine, cloud) or `hpc` (sealed channel)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stream_core.deployment import ModelConfig
from stream_gateway.phases import Phases
from stream_gateway.standing import Standing


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
    privacy: frozenset[str] = frozenset()
    """Classes of its own: it may see no text beyond any of them, nor beyond its tier's."""


def offered(model: ModelConfig) -> OfferedModel:
    """Say what a configured model offers."""
    return OfferedModel(
        id=model.id,
        context_window=model.context_window,
        modalities=frozenset(model.modalities) | {"text"},
        capabilities=frozenset(model.capabilities),
        demo=model.demo,
        privacy=frozenset() if model.privacy is None else frozenset({model.privacy}),
    )


Tell = Callable[[str], Awaitable[None]]
Moved = Callable[[str | None], None]


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
    usage_for_us: bool = False
    """Whether the usage of the stream is asked for by the gateway alone: an answer is complete without it."""
    clusters: frozenset[str] | None = None
    """The only ones that may answer, also in a continuation: what the key may use, or the one that was named."""
    phases: Phases = field(default_factory=Phases)
    """Told where the time to the first token goes."""
    tell: Tell | None = None
    """Told now and then, in words, what the call waits for; None: it does not wait for a worker."""
    moved: Moved | None = None
    """Told when the answer has lost its worker (None), and whose cluster's goes on; None: nobody wants to know."""


class Answer(Protocol):
    """An answer that has begun. Iterate it to its end, or close it; both free everything on every hop.

    Iteration yields batches of chunks: the engine's bytes, verbatim. For `text/event-stream` a chunk is one whole
    event with its blank line, or a piece of a very long one; else a piece of the body. Asking for the next batch
    says that the last one was written and drained: this is the backpressure.

    Iteration raises `StreamBroken`, `UpstreamTimeout` or another `RemoteError` when the answer can't be completed;
    it ends normally only when the engine's answer was complete.
    """

    content_type: str
    cluster: str
    """Whose worker answers; empty on a tier without clusters."""

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

    def standings(self, model: str) -> Mapping[str, Standing]:
        """How a model stands on each cluster that offers it; empty for a tier without clusters. No I/O."""
        ...

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        """See to it that a worker of a model becomes ready on one of these clusters; returns at once."""
        ...

    def note(self) -> str:
        """What a client should know of this tier's state, for the reason it is told; mostly nothing. No I/O."""
        ...

    async def open(self, call: Call) -> Answer:
        """Send the request and wait until the engine has accepted it (HTTP status 200).

        Raises:
            UpstreamRejected: the engine refused the request itself (4xx): passed on to the client as it is.
            UpstreamUnavailable: nobody there, busy, 5xx before the answer began: another candidate may be tried.
            WorkerNotReady: likewise; a worker may be ready later, but was not within the limit.
            UpstreamTimeout: no sign of life within the tier's limit.
        """
        ...

    async def start(self) -> None:
        """Connect and begin to watch health; returns at once also when the other side is away."""
        ...

    async def aclose(self) -> None:
        """Release everything."""
        ...
