"""Condensed blocks by content, kept in memory, bounded by number and bytes.

Keys are digests of scope and content: a block is found only by who sends the same scope and the same messages.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_ENTRY_OVERHEAD: Final = 200
"""Bytes of the dictionary entry, the key and the string object."""


class Blocks:
    """A least-recently-used cache; thread-safe."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes | None) -> str | None:
        """Return a block; None when it is not there, or the key is None."""
        if key is None:
            return None
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: bytes | None, text: str) -> None:
        """Keep a block; the longest unused ones make room. A key of None keeps nothing."""
        if key is None:
            return
        with self._lock:
            self._bytes -= _size(self._entries.pop(key, None))
            self._entries[key] = text
            self._bytes += _size(text)
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                self._bytes -= _size(self._entries.popitem(last=False)[1])

    def get_or_make(self, key: bytes | None, make: Callable[[], str]) -> str:
        """Return a block, made and kept if it is not there."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    @property
    def entries(self) -> int:
        """Return how many blocks are kept."""
        return len(self._entries)


def block_key(scope: str, kind: str, content: bytes) -> bytes | None:
    """Name a block.

    Args:
        scope: of the caller; empty shares nothing, so there is no key.
        kind: how the block was made.
        content: everything it was made from.
    """
    if not scope:
        return None
    digest = hashlib.blake2b(digest_size=32)
    for part in (scope.encode(), kind.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(content)
    return digest.digest()


def _size(text: str | None) -> int:
    return 0 if text is None else len(text.encode()) + _ENTRY_OVERHEAD
