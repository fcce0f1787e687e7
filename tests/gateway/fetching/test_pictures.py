"""What a picture claims is read from its header, wherever that stands; above the limit it is refused, with numbers."""

import base64
import struct

import pytest
from gateway.fetching.test_fetcher import CLASSES, PNG, body

from stream_gateway.fetching.fetcher import Fetcher
from stream_gateway.fetching.pictures import Gauge, Pixels, decoded
from stream_gateway.fetching.pixels import ImageTooLarge
from stream_gateway.settings import FetchSettings

PLACE = "messages[0].content[1].image_url.url"
SEGMENT = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\xff\xc0" * 30_000
"""Metadata of a JPEG that looks like a frame's header inside."""


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9)


def jpeg(width: int, height: int, *, marker: int = 0xC0, before: bytes = b"") -> bytes:
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, height, width, 1) + bytes(3)
    return b"\xff\xd8" + before + frame + b"\xff\xda" + bytes(20)


def gif(width: int, height: int, *, frame: Pixels = (1, 1), flags: int = 0, before: bytes = b"") -> bytes:
    colours = bytes(3 << (flags & 7) + 1) if flags & 0x80 else b""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0)
    return screen + colours + before + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0)


def webp(kind: bytes, data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data) + 12) + b"WEBP" + kind + struct.pack("<I", len(data)) + data


def bits(width: int, height: int) -> bytes:
    return struct.pack("<I", width - 1 | height - 1 << 14)


NOTE = b"!\xfe\xff" + b"," * 255 + b"\x02,,\x00"
"""A comment in a GIF, full of what begins a frame."""
PICTURES = {
    "png": (png(60_000, 60_000), (60_000, 60_000)),
    "jpeg": (jpeg(60_000, 50_000), (60_000, 50_000)),
    "progressive jpeg": (jpeg(9, 8, marker=0xC2), (9, 8)),
    "jpeg with metadata": (jpeg(7, 60_000, before=b"\xff\xe0\x00\x02\xff\xff" + SEGMENT * 3), (7, 60_000)),
    "jpeg with rubbish": (jpeg(7, 6, before=b"\xff\x00rubbish\xff\xd0"), (7, 6)),
    "jpeg of two frames": (jpeg(60_000, 60_000, before=jpeg(1, 1)[2:15]), (60_000, 60_000)),
    "jpeg whose tables look like frames": (jpeg(5, 4, before=b"\xff\xc4\x00\x09" + bytes(7)), (5, 4)),
    "gif": (gif(60_000, 2), (60_000, 2)),
    "gif with colours and notes": (gif(3, 2, flags=0xF7, before=NOTE), (3, 2)),
    "gif whose frame is larger": (gif(1, 1, frame=(60_000, 59_999)), (60_000, 59_999)),
    "gif without frames": (gif(3, 2)[:13], (3, 2)),
    "webp": (webp(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16_383, 0x4000 | 300)), (16_383, 300)),
    "lossless webp": (webp(b"VP8L", b"\x2f" + bits(16_000, 9_000)), (16_000, 9_000)),
    "extended webp": (webp(b"VP8X", bytes(4) + b"\x5f\xea\x00\x5f\xea\x00"), (60_000, 60_000)),
    "a real one": (PNG, (1, 1)),
    "another kind": (b"BM" + bytes(60), None),
    "nothing": (b"", None),
    "sound": (b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(40), None),
}


def url_of(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("name", PICTURES)
def test_what_it_claims(name: str) -> None:
    """Whole, byte by byte, as base64 with and without what decoders pass over, and never more than it says when cut."""
    data, expected = PICTURES[name]
    assert Gauge().pixels_of([data]) == expected
    assert Gauge().pixels_of(bytes([byte]) for byte in data) == expected
    lines = "data:image/png;BASE64,=" + base64.encodebytes(data).decode().replace("A", "A\t\u20ac=")
    for url in (url_of(data), url_of(data).rstrip("="), lines):
        assert b"".join(decoded(url)) == data
        assert Gauge().pixels_of(decoded(url)) == expected
    for end in range(0, len(data), max(1, len(data) // 50)):
        found = Gauge().pixels_of([data[:end]])
        assert found is None or expected is None or found <= expected


@pytest.mark.parametrize(
    "url", ["data:,x", "data:image/png", "data:image/png;base64", "data:text/plain,%89PNG", "data:" + "x" * 20_000]
)
def test_what_is_no_base64(url: str) -> None:
    """Nothing of it is read."""
    assert list(decoded(url)) == []


def test_it_is_refused_with_place_and_limit() -> None:
    """Under whatever type it comes, at the limit it may, one pixel above it may not."""
    by = Fetcher(FetchSettings())
    with pytest.raises(ImageTooLarge) as caught:
        by.check(body(url_of(png(60_000, 60_000), "audio/wav")), CLASSES, "public")
    assert caught.value.param == PLACE
    words = f"{PLACE}: the image is 60,000 x 60,000: 3,600,000,000 pixels, at most 178,956,970 are allowed"
    assert caught.value.message == words
    narrow = Fetcher(FetchSettings(), most_pixels=100)
    assert narrow.check(body(url_of(png(10, 10))), CLASSES, "public") == []
    with pytest.raises(ImageTooLarge, match="101 pixels, at most 100"):
        narrow.check(body(url_of(png(101, 1))), CLASSES, "public")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 500_000,
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sI", 0, b"tEXt", 0) * 200_000,
        b"GIF89a" + bytes(7) + b"!\xfe" + b"\x01x" * 1_000_000,
        b"GIF89a" + bytes(7) + b"\x00" * 1_000_000,
        b"\xff\xd8" + b"\xff" * 1_000_000,
    ],
    ids=["jpeg", "png", "gif", "gif without a block", "jpeg that is filled"],
)
def test_a_header_without_an_end_is_refused(data: bytes) -> None:
    """However many pictures share the work: a request's headers are looked at in so many steps and no more."""
    by = Fetcher(FetchSettings())
    asked = body(url_of(data))
    asked["messages"] *= 3
    with pytest.raises(ImageTooLarge, match="more parts than are looked at"):
        by.check(asked, CLASSES, "public")


def test_rubbish_is_passed_over_quickly() -> None:
    """Megabytes of what is no header cost no steps: the picture behind them is found."""
    data = jpeg(60_000, 60_000, before=b"\xff\xd0" + b"r" * 5_000_000)
    assert Gauge(100).pixels_of(decoded(url_of(data))) == (60_000, 60_000)
