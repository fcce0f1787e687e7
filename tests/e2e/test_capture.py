"""What relay and broker see of a run: never the prompt, never the answer, in no encoding."""

import base64
import contextlib
import gzip
import json
import secrets
import zlib
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.process

_WINDOW = 12
"""Bytes of a text that count as having seen it."""


def encodings(text: str) -> Iterator[tuple[str, bytes]]:
    """A text as it might stand on a wire."""
    raw = text.encode()
    yield "plain", raw
    yield "reversed", raw[::-1]
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "utf-16-le", text.encode("utf-16-le")
    yield "utf-16-be", text.encode("utf-16-be")
    yield "json escapes", "".join(f"\\u{ord(char):04x}" for char in text).encode()
    yield "percent", "".join(f"%{byte:02X}" for byte in raw).encode()
    for shift in range(3):
        # The middle of base64 text does not depend on what stands before it, but for its place modulo three.
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            coded = encode(b"\0" * shift + raw)
            yield f"{name} at {shift}", coded[4 : len(coded) - len(coded) % 4 - 4]
    for mask in range(1, 256):
        yield f"xor {mask}", bytes(byte ^ mask for byte in raw)


def inflated(data: bytes) -> Iterator[bytes]:
    """Whatever decompresses from any place in the data."""
    for mark, wbits in ((b"\x1f\x8b\x08", 31), (b"\x78\x01", 15), (b"\x78\x9c", 15), (b"\x78\xda", 15)):
        place = data.find(mark)
        while place >= 0:
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj(wbits).decompress(data[place:], 1 << 20)
            place = data.find(mark, place + 1)


def finds(texts: list[str], captured: list[bytes]) -> list[str]:
    """Which text stands in what was captured, and how."""
    found = []
    for data in captured:
        for layer in (data, *inflated(data)):
            for text in texts:
                found += [f"{name}: {text!r}" for name, coded in encodings(text) if coded and coded in layer]
    return found


@pytest.mark.parametrize(
    "hide",
    [
        lambda raw: raw,
        lambda raw: base64.b64encode(b"x" + raw),
        lambda raw: base64.urlsafe_b64encode(b"xy" + raw + b"z"),
        lambda raw: raw.hex().encode(),
        lambda raw: json.dumps(raw.decode()).encode(),
        lambda raw: raw.decode().encode("utf-16-le"),
        gzip.compress,
        zlib.compress,
        lambda raw: bytes(byte ^ 0x5A for byte in raw),
    ],
)
def test_the_search_finds_what_is_there(hide):
    """The search itself is no stub: it finds a text in each of these disguises within noise."""
    captured = secrets.token_bytes(500) + hide(b"the quick brown canary sings") + secrets.token_bytes(500)
    assert finds(["quick brown canary"], [captured])


def test_neither_prompt_nor_answer(house, client):
    """Every byte that NATS and the relay saw holds no piece of prompt or answer, while the engine saw the prompt."""
    canary = f"canary-{secrets.token_hex(8)}"
    asked = f"Please remember the word {canary} and tell me what a relay is."
    messages = [{"role": "system", "content": f"system {canary}"}, {"role": "user", "content": asked}]
    answers = []
    for stream in (False, True):
        answer = client.chat.completions.create(
            model="hpc", messages=messages, max_tokens=48, stream=stream, temperature=0, seed=1
        )
        if stream:
            answers.append("".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices))
        else:
            answers.append(answer.choices[0].message.content)
    pieces = [text[start : start + _WINDOW] for text in answers for start in range(0, len(text) - _WINDOW, _WINDOW)]
    assert pieces
    assert finds([canary], [bytes(buffer) for buffer in house.engine.sent]), "the engine must have seen the prompt"
    seen = [*house.broker.everything(), *house.relay.seen]
    assert sum(map(len, seen)) > 1000
    assert finds([canary, "Please remember the", "what a relay is", *pieces], seen) == []


def test_no_secret_on_the_wire_or_in_a_log(house):
    """No log holds the API key, a prompt, a ticket or a bootstrap secret; the broker never saw the API key."""
    logs = "".join(path.read_text(errors="replace") for path in (house.home / "logs").rglob("*.log"))
    assert house.api_key not in logs
    assert "What is a relay" not in logs
    assert "eyJ" not in logs
    assert finds([house.api_key], house.broker.everything()) == []
