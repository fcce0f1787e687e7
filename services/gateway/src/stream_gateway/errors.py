"""Errors become HTTP here, once: OpenAI's error body, the status, the headers a client expects."""

import math
from dataclasses import dataclass
from typing import Any, Final

import orjson

from stream_core.errors import StreamError, Unauthenticated, UpstreamRejected

Headers = list[tuple[bytes, bytes]]

_RETRY_AFTER_S = b"2"
_LONGEST_WORDS: Final = 2_000
_TOO_MANY: Final = 429
_MAY_COME_AGAIN: Final = frozenset({_TOO_MANY, 503})
_FRAMEWORK_CODES = {
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: Headers
    body: bytes


def error_body(message: str, *, type_: str, code: str, param: str | None = None) -> bytes:
    """Write OpenAI's error body."""
    return orjson.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}})


def reply_to(error: Exception, request_id: str) -> Reply:
    """Translate an error.

    Args:
        error: any; one that is not a `StreamError` tells the client nothing but the request's id.
        request_id: hex.
    """
    if isinstance(error, UpstreamRejected) and error.body.lstrip().startswith(b"{"):
        return Reply(error.status, [(b"content-type", error.content_type.encode("latin-1", "replace"))], error.body)
    headers: Headers = [(b"content-type", b"application/json")]
    if not isinstance(error, StreamError):
        return Reply(500, headers, _internal(request_id))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status_hint in _MAY_COME_AGAIN:
        headers.append((b"retry-after", _retry_after(error)))
    if error.status_hint == _TOO_MANY and not error.retryable:
        headers.append((b"x-should-retry", b"false"))  # what OpenAI's and Anthropic's clients ask before they wait
    status = error.status if isinstance(error, UpstreamRejected) else error.status_hint
    return Reply(status, headers, _described(error))


def framework_body(status: int, detail: str) -> bytes:
    """Write the body of an error that the framework itself found (404, 405, ...)."""
    type_, code = _FRAMEWORK_CODES.get(status, ("invalid_request_error", "invalid_request_error"))
    return error_body(detail, type_=type_, code=code)


def error_event(error: Exception, request_id: str) -> bytes:
    """Write the event that ends a stream which can't be completed; no "[DONE]" follows it."""
    if isinstance(error, UpstreamRejected) and (said := _one_line(error.body)) is not None:
        body = said
    else:
        body = _described(error) if isinstance(error, StreamError) else _internal(request_id)
    return b"data: " + body + b"\n\n"


def engines_words(body: bytes) -> dict[str, Any]:
    """Give what an OpenAI error body, often an engine's own, says: "message", "code", "param"."""
    try:
        read = orjson.loads(body)
    except orjson.JSONDecodeError:
        read = None
    found = read.get("error", read) if isinstance(read, dict) else read
    if isinstance(found, dict):
        words = str(found.get("message", found))[:_LONGEST_WORDS]
        return {"message": words, "code": found.get("code"), "param": found.get("param")}
    words = str(found or "the engine refuses the request")[:_LONGEST_WORDS]
    return {"message": words, "code": "upstream_rejected", "param": None}


def _one_line(body: bytes) -> bytes | None:
    """Write an engine's error body, which may have lines, so that it fits an event; None when it is none."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return orjson.dumps(said) if isinstance(said, dict) and "error" in said else None


def _retry_after(error: StreamError) -> bytes:
    told = getattr(error, "retry_after_s", None)
    return _RETRY_AFTER_S if told is None else str(max(1, math.ceil(told))).encode("ascii")


def _described(error: StreamError) -> bytes:
    return error_body(error.message, type_=error.type, code=error.code, param=error.param)


def _internal(request_id: str) -> bytes:
    return error_body(f"internal error, request {request_id}", type_="server_error", code="internal_error")
