"""Answers to `POST /v1/tokenize`: vLLM's form, whichever engine counted. Pure."""

from typing import Any

import orjson

from stream_core.errors import RemoteError, StreamBroken
from stream_gateway.errors import error_event


class TokenCount:
    """See `Translation`; such an answer is never streamed."""

    def feed(self, events: list[bytes]) -> list[bytes]:
        """Not expected."""
        raise StreamBroken(f"the engine streams {len(events)} events for a count of tokens")

    def end(self) -> list[bytes]:
        """Nothing."""
        return []

    def whole(self, body: bytes) -> bytes:
        """Add the count where the engine leaves it out, as llama.cpp does."""
        try:
            answer: Any = orjson.loads(body)
            tokens = answer["tokens"]
            return orjson.dumps({"count": len(tokens), **answer})
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise RemoteError("the engine's answer has no tokens") from error

    def broken(self, error: Exception, request_id: str) -> bytes:
        """As everywhere."""
        return error_event(error, request_id)
