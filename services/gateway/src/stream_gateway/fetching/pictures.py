"""How many pixels a picture says it has, read from its header alone; nothing is ever unpacked here. Pure.

A few kilobytes can claim 60,000 x 60,000 pixels, which an engine that believes them unpacks to 14 GB. Whatever a
data: URL calls itself, its first bytes tell what engines take it for:

    PNG     the chunk IHDR
    JPEG    the largest frame header (SOF) before the first scan
    GIF     the screen, or the first frame where that reaches beyond
    WebP    the canvas (VP8X), or the one frame (VP8, VP8L)
"""

import binascii
from collections.abc import Iterable, Iterator
from typing import Final

_BLOCK: Final = 8_192
"""Characters of base64 that are decoded at once: most headers are within the first block."""
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOISE: Final = bytes(set(range(256)) - set(_ALPHABET))
"""What lenient decoders pass over. Padding is among it: whoever stops there has read no more than is read here."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
"""What after 0xff has no length behind it."""
_LAST: Final = frozenset({0xD9, 0xDA})
"""The image's end, and the begin of a scan."""
_FRAME_BYTES: Final = 7
_STEPS: Final = 50_000
"""Of a request's pictures together: parts of headers that are looked at. A photograph has twenty."""

Pixels = tuple[int, int]
"""Width and height."""


class HeadersTooLongError(Exception):
    """The headers have more parts than are looked at."""


class Gauge:
    """Measures the pictures of one request."""

    def __init__(self, steps: int = _STEPS) -> None:
        self.steps = steps
        """Left for all that is still to come."""

    def pixels_of(self, data: Iterable[bytes]) -> Pixels | None:
        """Tell what a file claims; None where it is none of the four, or ends before it says.

        Args:
            data: of the file, in pieces, of which no more are asked for than the header needs.

        Raises:
            HeadersTooLongError: nobody but an attacker writes such.
        """
        head = _Head(data, self)
        try:
            match head.take(3):
                case b"\x89PN":
                    return _png(head)
                case b"\xff\xd8\xff":
                    return _jpeg(head)
                case b"GIF":
                    return _gif(head)
                case b"RIF":
                    return _webp(head)
        except EOFError:
            return None
        return None


def decoded(url: str) -> Iterator[bytes]:
    """Give the bytes of a data: URL in base64, piece by piece; none of another one."""
    comma = url.find(",", 0, _BLOCK)
    if comma < 0 or not url[:comma].lower().rstrip().endswith("base64"):
        return
    left = b""
    for at in range(comma + 1, len(url), _BLOCK):
        block = left + url[at : at + _BLOCK].encode("ascii", "ignore").translate(None, _NOISE)
        whole = len(block) // 4 * 4
        left = block[whole:]
        yield binascii.a2b_base64(block[:whole])
    if len(left) > 1:
        yield binascii.a2b_base64(left + b"==")


class _Head:
    """Bytes in their order, as many as are asked for; EOFError where there are fewer."""

    def __init__(self, data: Iterable[bytes], gauge: Gauge) -> None:
        self._data = iter(data)
        self._gauge = gauge
        self._here = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """Give the next bytes."""
        self._step()
        while len(self._here) - self._at < count:
            self._more()
        self._at += count
        return self._here[self._at - count : self._at]

    def skip(self, count: int) -> None:
        """Pass over some."""
        while (left := len(self._here) - self._at) < count:
            count -= left
            self._at = len(self._here)
            self._more()
        self._at += count

    def skip_to(self, byte: bytes) -> None:
        """Pass over everything until a byte, and that one too."""
        self._step()
        while (found := self._here.find(byte, self._at)) < 0:
            self._at = len(self._here)
            self._more()
        self._at = found + 1

    def big(self, count: int) -> int:
        """Read a number, the most significant byte first."""
        return int.from_bytes(self.take(count), "big")

    def little(self, count: int) -> int:
        """Read a number, the least significant byte first."""
        return int.from_bytes(self.take(count), "little")

    def _more(self) -> None:
        piece = next(self._data, None)
        if piece is None:
            raise EOFError
        self._here, self._at = self._here[self._at :] + piece, 0

    def _step(self) -> None:
        # Pieces need no counting: there are no more of them than the request's bytes allow.
        self._gauge.steps -= 1
        if self._gauge.steps < 0:
            raise HeadersTooLongError


def _png(head: _Head) -> Pixels | None:
    head.skip(5)
    while True:
        length, kind = head.big(4), head.take(4)
        if kind == b"IHDR":
            return head.big(4), head.big(4)
        if kind in {b"IDAT", b"IEND"}:
            return None
        head.skip(length + 4)


def _jpeg(head: _Head) -> Pixels | None:
    found: list[Pixels] = []
    try:
        while (marker := head.little(1)) not in _LAST:
            if marker == 0xFF:  # noqa: PLR2004  (a filling one: the marker is still to come)
                continue
            if marker not in _ALONE:
                length = head.big(2) - 2
                if marker in _FRAMES and length >= _FRAME_BYTES - 2:
                    head.skip(1)
                    height, width = head.big(2), head.big(2)
                    found.append((width, height))
                    length -= 5
                head.skip(max(0, length))
            head.skip_to(b"\xff")
    except EOFError:
        pass  # what was found counts
    return max(found, key=lambda each: each[0] * each[1], default=None)


def _gif(head: _Head) -> Pixels:
    head.skip(3)
    width, height, flags = head.little(2), head.little(2), head.little(1)
    try:
        head.skip(2 + (3 << (flags & 7) + 1 if flags & 0x80 else 0))
        while (kind := head.take(1)) != b",":
            if kind == b";":
                break
            if kind == b"!":
                head.skip(1)
                while length := head.little(1):
                    head.skip(length)
        else:
            left, top = head.little(2), head.little(2)
            width, height = max(width, left + head.little(2)), max(height, top + head.little(2))
    except EOFError:
        pass  # the screen counts
    return width, height


def _webp(head: _Head) -> Pixels | None:
    head.skip(5)
    if head.take(4) != b"WEBP":
        return None
    kind = head.take(4)
    head.skip(4)
    if kind == b"VP8X":
        head.skip(4)
        return head.little(3) + 1, head.little(3) + 1
    if kind == b"VP8 ":
        head.skip(6)
        return head.little(2) & 0x3FFF, head.little(2) & 0x3FFF
    if kind == b"VP8L":
        head.skip(1)
        bits = head.little(4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
