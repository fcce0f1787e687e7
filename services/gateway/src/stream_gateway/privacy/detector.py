"""Looks a request's texts through for what makes them confidential; what it finds can only raise the request's class.

The most confidential class is looked for first, and the first find ends the search: the client is told what kind of
thing was found, never the thing. A text is read in windows, so that no single search is long; a long one is read in a
thread, and one that is not done at the deadline counts as most confidential.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stream_core.bounded_patterns import MAX_WIDTH, compile_bounded
from stream_core.deployment import PolicyConfig
from stream_core.detector_config import DetectorConfig
from stream_core.privacy import strictest
from stream_gateway.privacy.identifiers import SEARCHES, Search
from stream_gateway.privacy.texts import has_unreadable, texts_of

_WINDOW: Final = 32_768
"""Characters of one search for what is known."""
_OWN_WINDOW: Final = 1_024
"""Characters of one search for an institution's own pattern, which may take more steps."""
_BEYOND: Final = 4 * MAX_WIDTH
"""What a match that begins in a window, and what it looks at, may reach beyond it."""
_INLINE: Final = 16_384
"""Characters that are looked through at once, without a thread."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason to raise a class."""

    privacy: str
    words: str
    """Of the kind of thing that was found, for the client."""


class _OutOfTimeError(Exception):
    """The deadline is over."""


class Detector:
    """What a policy's detector looks for.

    Args:
        policy: with its detector, or without one: then nothing is found.
        clock: monotonic, in seconds.
    """

    def __init__(self, policy: PolicyConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._classes = policy.classes
        self._clock = clock
        self._config = policy.detector or DetectorConfig()
        own = [
            (pattern.privacy, Search(pattern.name, compile_bounded(pattern.pattern)), _OWN_WINDOW)
            for pattern in self._config.patterns
        ]
        known = [(privacy, search, _WINDOW) for kind, privacy in self._config.find.items() for search in SEARCHES[kind]]
        self._searches = sorted([*known, *own], key=lambda each: -self._classes.index(each[0]))

    async def raised(self, body: Mapping[str, Any], privacy: str) -> Finding | None:
        """Look a request through.

        Args:
            body: of the request, every field.
            privacy: its class as far as it is known.

        Returns:
            Why its class is a higher one; None when it is not.
        """
        config = self._config
        searches = [each for each in self._searches if self._above(each[0], privacy)]
        unread = config.unreadable
        if unread is not None and not (self._above(unread, privacy) and has_unreadable(body)):
            unread = None
        known = Finding(unread, "a part that is no text") if unread is not None else None
        searches = [each for each in searches if known is None or self._above(each[0], known.privacy)]
        if not searches:
            return known
        texts = list(texts_of(body))
        if sum(map(len, texts)) <= _INLINE:
            found = self._look(texts, searches)
        else:
            found = await asyncio.to_thread(self._look, texts, searches)
        return found or known

    def _above(self, one: str, other: str) -> bool:
        return one != other and strictest(self._classes, one, other) == one

    def _look(self, texts: Sequence[str], searches: Sequence[tuple[str, Search, int]]) -> Finding | None:
        deadline = self._clock() + self._config.deadline_s
        try:
            for privacy, search, window in searches:
                if any(self._holds(text, search, window, deadline) for text in texts):
                    return Finding(privacy, search.words)
        except _OutOfTimeError:
            return Finding(searches[0][0], "too long to be looked through")
        return None

    def _holds(self, text: str, search: Search, window: int, deadline: float) -> bool:
        different: set[str] = set()
        for found in self._matches(text, search, window, deadline):
            different.add(found.casefold())
            if len(different) >= search.needed:
                return search.beside is None or self._holds(text, search.beside, window, deadline)
        return False

    def _matches(self, text: str, search: Search, window: int, deadline: float) -> Iterator[str]:
        for start in range(0, len(text), window):
            if self._clock() > deadline:
                raise _OutOfTimeError
            end = start + window + _BEYOND
            if search.hints and not _has_any(text[start:end].casefold(), search.hints):
                continue
            for match in search.pattern.finditer(text, start, end):
                if match.start() >= start + window:
                    break  # the next window's
                if search.proves is None or search.proves(match):
                    yield match[0]


def _has_any(text: str, hints: Sequence[str]) -> bool:
    return any(hint in text for hint in hints)
