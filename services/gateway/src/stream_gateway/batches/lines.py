"""The lines of a batch's file: cut, counted, checked. Pure: bytes in, records out.

Whether each `custom_id` is there only once is asked in two passes, so that a million lines need 8 MB, and 40 for the
moment of sorting: the first pass keeps a 64-bit keyed hash of each; in the second one only those whose hash came
twice are compared.
"""

import hashlib
import itertools
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from stream_core.errors import InvalidRequest
from stream_core.openai.models import ChatRequest, parse_chat

MAX_CUSTOM_ID: Final = 512
_HASH_BYTES: Final = 8
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank."""

    number: int
    """From 1, blank ones counted."""
    offset: int
    """Bytes from the file's beginning."""
    length: int
    """Bytes, without its end."""
    data: bytes = field(repr=False)
    """Empty when it is longer than allowed."""


@dataclass(frozen=True, slots=True)
class Good:
    """A line that can run."""

    custom_id: str
    chat: ChatRequest
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that can't."""

    custom_id: str | None
    message: str
    param: str | None = None


class LineSplitter:
    """Cuts a stream of bytes into lines; of a line that is too long it keeps nothing but its length.

    Args:
        max_line: bytes of the longest line.
    """

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._parts: list[bytes] = []
        self._length = 0
        self._offset = 0
        self._number = 1

    def feed(self, data: bytes) -> list[Line]:
        """Take the next bytes; give the lines that end in them."""
        lines = []
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            lines += self._end()
        self._add(rest)
        return lines

    def finish(self) -> list[Line]:
        """Give the last line, which need not have an end."""
        return self._end()

    def _add(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length <= self._max:
            self._parts.append(piece)
        else:
            self._parts.clear()

    def _end(self) -> list[Line]:
        data = b"".join(self._parts)
        line = Line(self._number, self._offset, self._length, data)
        blank = self._length == len(data) and not data.strip()
        self._offset += self._length + 1
        self._number += 1
        self._parts.clear()
        self._length = 0
        return [] if blank else [line]


class _Peek(msgspec.Struct):
    custom_id: Any = None


class Census:
    """Counts lines and finds out which `custom_id`s come more than once.

    Args:
        salt: random, so that nobody can make hashes collide.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._hashes = array("Q")
        self._twice: frozenset[int] = frozenset()
        self._seen: set[bytes] = set()
        self.count = 0

    def look(self, line: Line) -> None:
        """First pass: count a line."""
        self.count += 1
        try:
            custom_id = msgspec.json.decode(line.data, type=_Peek).custom_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if isinstance(custom_id, str):
            self._hashes.append(self._hash(custom_id))

    def close(self) -> None:
        """End the first pass."""
        ordered = sorted(self._hashes)
        self._twice = frozenset(a for a, b in itertools.pairwise(ordered) if a == b)
        self._hashes = array("Q")

    def is_repeated(self, custom_id: str) -> bool:
        """Second pass: whether this one was there before; ask once per line, in order."""
        if self._hash(custom_id) not in self._twice:
            return False
        digest = hashlib.blake2b(custom_id.encode(), digest_size=_DIGEST_BYTES, key=self._salt).digest()
        if digest in self._seen:
            return True
        self._seen.add(digest)
        return False

    def _hash(self, custom_id: str) -> int:
        text = custom_id.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=_HASH_BYTES, key=self._salt).digest(), "big")


def check(line: Line, endpoint: str, max_line: int) -> Good | Bad:
    """Check one line by itself.

    Args:
        line: of the file.
        endpoint: of the batch.
        max_line: bytes of the longest line.
    """
    if line.length > max_line:
        return Bad(None, f"the line has {line.length:,} bytes, at most {max_line:,} are allowed")
    try:
        request = orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        return Bad(None, f"not valid JSON: {error}")
    if not isinstance(request, dict):
        return Bad(None, "not a JSON object")
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        return Bad(None, f"custom_id must be a string of 1 to {MAX_CUSTOM_ID} characters", "custom_id")
    if request.get("method") != "POST":
        return Bad(custom_id, "method must be 'POST'", "method")
    if request.get("url") != endpoint:
        return Bad(custom_id, f"url must be the batch's endpoint, {endpoint!r}", "url")
    if not isinstance(request.get("body"), dict):
        return Bad(custom_id, "body must be a JSON object", "body")
    body = orjson.dumps(request["body"])
    try:
        chat = parse_chat(body)
    except InvalidRequest as error:
        return Bad(custom_id, f"body: {error.message}", f"body.{error.param}" if error.param else "body")
    if chat.stream:
        return Bad(custom_id, "body.stream must not be true in a batch", "body.stream")
    return Good(custom_id, chat, len(body))
