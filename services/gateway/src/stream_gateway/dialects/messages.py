"""Anthropic's Messages API, which coding agents speak, on the same way as every chat request."""

import time
from collections.abc import Iterable

from stream_core.ids import to_hex
from stream_gateway.accounts.principal import Principal
from stream_gateway.dialects.contract import Spoken
from stream_gateway.dialects.messages_answer import MessagesAnswer
from stream_gateway.dialects.messages_errors import error_event, error_reply
from stream_gateway.dialects.messages_request import parse_messages
from stream_gateway.errors import Headers, Reply
from stream_gateway.limits.account import Levels
from stream_gateway.limits.headers import anthropic_headers


def with_bearer(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Give headers in which the key of `x-api-key` stands where a bearer key does; `authorization` goes before it."""
    found = list(headers)
    if any(name == b"authorization" for name, _ in found):
        return found
    return [*found, *((b"authorization", b"Bearer " + value) for name, value in found if name == b"x-api-key")]


class MessagesDialect:
    """See `Dialect`."""

    def credentials(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """`x-api-key`, or a bearer key."""
        return with_bearer(headers)

    async def read(self, body: bytes, principal: Principal, privacy: str | None, request_id: bytes) -> Spoken:  # noqa: ARG002  (its dialect needs no more)
        """Translate the request."""
        asked = parse_messages(body)
        return Spoken(asked.chat, MessagesAnswer(to_hex(request_id), asked.chat.model, thinking=asked.thinking))

    def reply(self, error: Exception, request_id: str) -> Reply:
        """Anthropic's error body."""
        return error_reply(error, request_id)

    def event(self, error: Exception, request_id: str) -> bytes:
        """The same as an event."""
        return error_event(error, request_id)

    def limit_headers(self, levels: Levels) -> Headers:
        """`anthropic-ratelimit-*`."""
        return anthropic_headers(levels, time.time())
