"""How an API speaks: what a route needs to know of it, so that all APIs go one way through the pipeline.

A dialect reads a body into the chat request that judge, policy, summarizer and engines know, and writes the engine's
answer, and every error, in its own form. A chat answer that needs no change passes as the engine's own bytes.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from stream_core.openai.models import ChatRequest
from stream_gateway.accounts.principal import Principal
from stream_gateway.errors import Headers, Reply, error_event, reply_to
from stream_gateway.limits.account import Levels
from stream_gateway.limits.headers import openai_headers


class Translation(Protocol):
    """Turns one engine's chat answer into another API's: bytes in, bytes out. Pure."""

    def feed(self, events: list[bytes]) -> list[bytes]:
        """Take the next events of a stream; give those that are due now, often none.

        Raises:
            RemoteError: the engine reports a failure, or says what this API can't express.
        """
        ...

    def end(self) -> list[bytes]:
        """Give the last events of a stream that is complete."""
        ...

    def whole(self, body: bytes) -> bytes:
        """Turn an answer that is not streamed.

        Raises:
            RemoteError: it is no chat answer.
        """
        ...

    def broken(self, error: Exception, request_id: str) -> bytes:
        """Give the event that ends a stream which can't be completed."""
        ...


@dataclass(frozen=True, slots=True)
class Spoken:
    """A request as a dialect has understood it."""

    chat: ChatRequest
    translation: Translation | None = None
    """None: the engine's bytes pass as they are."""
    privacy: str | None = None
    """Raises the request's class, as the header x-stream-privacy does; None leaves it to the header."""
    keep: Callable[[str], Awaitable[None]] | None = None
    """Called with the class that the request had in the end when the answer is complete, before the client learns that
    it is."""


class Dialect(Protocol):
    """One API."""

    def credentials(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Give the headers as `Entrance.authenticate` reads them."""
        ...

    async def read(self, body: bytes, principal: Principal, privacy: str | None, request_id: bytes) -> Spoken:
        """Understand a body.

        Args:
            body: as it came.
            principal: who asks.
            privacy: what the header x-stream-privacy says.
            request_id: 16 bytes.

        Raises:
            InvalidRequest: naming the field.
        """
        ...

    def reply(self, error: Exception, request_id: str) -> Reply:
        """Write an error as a whole answer."""
        ...

    def event(self, error: Exception, request_id: str) -> bytes:
        """Write an error as the event that ends a stream."""
        ...

    def limit_headers(self, levels: Levels) -> Headers:
        """Say what is left of the limits of a minute."""
        ...


class OpenAiDialect:
    """What OpenAI's APIs have in common: bearer keys, and the form of errors."""

    def credentials(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """As they are."""
        return list(headers)

    def reply(self, error: Exception, request_id: str) -> Reply:
        """OpenAI's error body."""
        return reply_to(error, request_id)

    def event(self, error: Exception, request_id: str) -> bytes:
        """The error body as an event; no "[DONE]" follows it."""
        return error_event(error, request_id)

    def limit_headers(self, levels: Levels) -> Headers:
        """`x-ratelimit-*`."""
        return openai_headers(levels)
