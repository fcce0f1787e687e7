"""Bytes that two programs could take for two different requests: refused, and nothing of them is asked of anybody."""

import json

import pytest
from security.fort import Fort, chat, error_of, status_of

pytestmark = pytest.mark.process

BODY = json.dumps(chat("outer")).encode()
INNER = json.dumps(chat("smuggled")).encode()


def smuggled(fort: Fort) -> bytes:
    return fort.head(content_type="application/json", content_length=str(len(INNER))) + b"\r\n" + INNER


def attacks(fort: Fort) -> dict[str, bytes]:
    """What is sent, by name."""
    head = fort.head(content_type="application/json")
    size, whole = str(len(BODY)).encode(), smuggled(fort)
    chunked = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    return {
        "length and chunks": head + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + chunked + whole,
        "chunks and length": head + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + chunked + whole,
        "two lengths": head + b"content-length: 0\r\ncontent-length: " + size + b"\r\n\r\n" + BODY + whole,
        "two equal lengths": head + b"content-length: " + size + b"\r\ncontent-length: " + size + b"\r\n\r\n" + BODY,
        "a list of lengths": head + b"content-length: 0, " + size + b"\r\n\r\n" + BODY + whole,
        "a signed length": head + b"content-length: +" + size + b"\r\n\r\n" + BODY + whole,
        "a negative length": head + b"content-length: -1\r\n\r\n" + BODY + whole,
        "a length in hex": head + b"content-length: 0x10\r\n\r\n" + BODY + whole,
        "an endless length": head + b"content-length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
        "a folded header": head + b"x-a: b\r\n content-length: 0\r\n\r\n" + BODY + whole,
        "a folded length": head + b"content-length:\r\n 5\r\n\r\n" + BODY + whole,
        "a space before the colon": head + b"content-length : 0\r\n\r\n" + whole,
        "a header without colon": head + b"content-length\r\n\r\n" + whole,
        "chunked and something": head + b"transfer-encoding: chunked, identity\r\n\r\n" + chunked + whole,
        "chunked twice": head + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n" + chunked + whole,
        "nearly chunked": head + b"transfer-encoding: xchunked\r\n\r\n" + chunked + whole,
        "chunked in a bell": head + b"transfer-encoding: \x0bchunked\r\n\r\n" + chunked + whole,
        "a chunk of no number": head + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + BODY + whole,
        "a chunk of a huge number": head + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n" + BODY + whole,
        "a chunk of a negative number": head + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + BODY + whole,
        "a chunk longer than it says": head
        + b"transfer-encoding: chunked\r\n\r\n1\r\n"
        + BODY
        + b"\r\n0\r\n\r\n"
        + whole,
        "a nul in a header": head + b"x-a: b\x00c\r\ncontent-length: 0\r\n\r\n" + whole,
        "a bare line end in a header": head + b"x-a: b\rcontent-length: 0\r\n\r\n" + whole,
        "two versions": b"POST / HTTP/1.1 HTTP/1.1\r\nhost: x\r\n\r\n" + whole,
        "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + whole,
        "a blank in a name": head + b"content length: 0\r\n\r\n" + whole,
        "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + whole,
    }


async def test_what_is_ambiguous_is_refused(fort: Fort) -> None:
    """Each ends its connection with one refusal; the request behind it is never read as one."""
    for name, data in attacks(fort).items():
        answer = await fort.say(data)
        assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        assert 400 <= status_of(answer) < 500, (name, answer)
        assert error_of(answer)["type"] == "invalid_request_error", name
        assert b"connection: close" in answer.lower(), name
    assert not fort.engine.was_asked("smuggled")
    assert fort.gateway.program.log().count("Traceback") == 0


async def test_what_is_not_is_answered(fort: Fort) -> None:
    """The same request in plain words, in chunks, and two of them in a row, are answered."""
    head = fort.head(content_type="application/json")
    chunked = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
    assert status_of(await fort.say(head + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunked)) == 200
    size = f"content-length: {len(BODY)}\r\n".encode()
    two = head + size + b"\r\n" + BODY + head + size + b"connection: close\r\n\r\n" + BODY
    assert (await fort.say(two)).count(b"HTTP/1.1 200 OK") == 2
    after_the_end = head + size + b"connection: close\r\n\r\n" + BODY + smuggled(fort)
    assert (await fort.say(after_the_end)).count(b"HTTP/1.1 ") == 1
    assert not fort.engine.was_asked("smuggled")
