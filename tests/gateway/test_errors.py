"""Errors at the edge: status, OpenAI's body, headers; nothing of the inside leaks."""

import inspect

import orjson
import pytest

from stream_core import errors
from stream_core.errors import LimitExceeded, StreamError, Unauthenticated, UpstreamRejected, UpstreamUnavailable
from stream_gateway.errors import error_event, reply_to

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, StreamError) and kind is not UpstreamRejected
]


@pytest.mark.parametrize("kind", TREE)
def test_each_error_of_the_tree_has_openais_body(kind: type[StreamError]) -> None:
    """Every class becomes its status and a body with exactly message, type, param and code."""
    reply = reply_to(kind("words", param="field"), "abc")
    assert reply.status == kind.status_hint
    assert orjson.loads(reply.body) == {
        "error": {"message": "words", "type": kind.type, "param": "field", "code": kind.code}
    }


def test_the_headers_that_clients_act_on() -> None:
    """401 asks for a bearer key; 503 and 429 say when to come back."""
    assert (b"www-authenticate", b"Bearer") in reply_to(Unauthenticated("x"), "").headers
    for error in (UpstreamUnavailable("x"), LimitExceeded("x")):
        assert b"retry-after" in dict(reply_to(error, "").headers)


def test_an_engines_own_error_passes_as_it_is() -> None:
    """Status, body and content type of the engine's refusal are the client's."""
    body = b'{"error": {"message": "temperature is too high"}}'
    reply = reply_to(UpstreamRejected("x", status=422, body=body, content_type="application/json"), "")
    assert (reply.status, reply.body) == (422, body)


@pytest.mark.parametrize("body", [b"", b"<html>413</html>"])
def test_an_engines_error_without_json_gets_a_body(body: bytes) -> None:
    """A proxy's HTML page becomes OpenAI's body, its status stays."""
    reply = reply_to(UpstreamRejected("the tier refuses", status=413, body=body, content_type="text/html"), "")
    assert reply.status == 413
    assert orjson.loads(reply.body)["error"]["message"] == "the tier refuses"


def test_an_unexpected_error_tells_only_the_request() -> None:
    """A bug's message stays inside; the client gets the id to ask about."""
    reply = reply_to(RuntimeError("password=1234"), "feed")
    assert reply.status == 500
    assert b"1234" not in reply.body
    assert b"feed" in reply.body
    assert b"1234" not in error_event(RuntimeError("password=1234"), "feed")


def test_an_error_event_is_one_event() -> None:
    """A message with line ends can't break out of its event."""
    event = error_event(UpstreamUnavailable("a\n\ndata: [DONE]\n\n"), "")
    assert event.startswith(b"data: {")
    assert event.count(b"\n") == 2
    assert event.endswith(b"\n\n")
