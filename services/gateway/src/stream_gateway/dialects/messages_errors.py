"""Errors in Anthropic's form: status, `type` by status, and `request_id`; our `code` and `param` beside them. Pure."""

from typing import Any, Final

import orjson

from stream_core.errors import StreamError, UpstreamRejected
from stream_gateway.errors import Reply, engines_words, reply_to

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_SERVER_ERRORS: Final = 500


def error_reply(error: Exception, request_id: str) -> Reply:
    """Translate an error.

    Args:
        error: any; one that is not a `StreamError` tells the client nothing but the request's id.
        request_id: hex.
    """
    reply = reply_to(error, request_id)
    headers = [pair for pair in reply.headers if pair[0] != b"content-type"]
    return Reply(reply.status, [(b"content-type", b"application/json"), *headers], _body(error, reply, request_id))


def error_event(error: Exception, request_id: str) -> bytes:
    """Write the event that ends a stream which can't be completed; no message_stop follows it."""
    return b"event: error\ndata: " + _body(error, reply_to(error, request_id), request_id) + b"\n\n"


def in_messages_form(body: bytes, status: int, request_id: str) -> bytes:
    """Translate the body of an OpenAI error."""
    return _dump(engines_words(body), status, request_id)


def _body(error: Exception, reply: Reply, request_id: str) -> bytes:
    said: dict[str, Any] = {}
    if isinstance(error, StreamError) and not isinstance(error, UpstreamRejected):
        said = {"message": error.message, "code": error.code, "param": error.param}
    else:
        said = engines_words(reply.body)
    return _dump(said, reply.status, request_id)


def _dump(said: dict[str, Any], status: int, request_id: str) -> bytes:
    kind = _TYPES.get(status, "invalid_request_error" if status < _SERVER_ERRORS else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, **said}, "request_id": request_id})
