"""One text, whatever is asked: its sentences, words and values, and its shortest faithful form. Pure.

It depends on nothing but the text, so that a further turn of the same conversation finds it again (`Analyses`).
"""

import hashlib
import heapq
import itertools
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from stream_summarizer.claims import Claim, claims_of
from stream_summarizer.facts import Fact, facts_of
from stream_summarizer.terms import content_words, sentences, words

COVERED: Final = 2 / 3
"""Share of a message's content words that its shortest faithful form holds."""
_STATED: Final = re.compile(
    r"\b(?:instead|actually|no longer|changed?|moved|correction|must|never|always|please|remember|prefer|decided)\b",
    re.IGNORECASE,
)
_SPECIFIC: Final = re.compile(r"\d+|(?<=[a-z,;:] )[A-Z][a-z]|`[^`]+`|\w@\w")
_BYTES_PER_CHARACTER: Final = 24
"""What an analysis takes in memory, measured on chats and rounded up."""
_OVERHEAD_BYTES: Final = 2_000


class Analysis:
    """One text."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.sentences = sentences(text)
        spoken = [words(sentence) for sentence in self.sentences]
        self.bag = Counter(itertools.chain.from_iterable(spoken))
        self.places: dict[str, list[int]] = {}
        """In which sentences each stem stands."""
        for at, stems in enumerate(spoken):
            for word in set(stems):
                self.places.setdefault(word, []).append(at)
        self.length = self.bag.total()
        self.content = content_words(text)
        self.specific = len(_SPECIFIC.findall(text))
        """About how many names, numbers and identifiers it has."""
        self.states = bool(_STATED.search(text))
        """Whether it instructs, corrects or decides something."""

    @cached_property
    def facts(self) -> list[tuple[Fact, ...]]:
        """The values that each sentence states."""
        return [facts_of(sentence) for sentence in self.sentences]

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The values that its sentences claim."""
        return claims_of(self.sentences)

    @cached_property
    def marked(self) -> list[bool]:
        """Whether each sentence has a number, a name or an identifier."""
        return [_SPECIFIC.search(sentence) is not None for sentence in self.sentences]

    @cached_property
    def core(self) -> tuple[int, ...]:
        """The sentences, in order, that hold `COVERED` of the content words at the least length, greedily."""
        own = [content_words(sentence) for sentence in self.sentences]
        wanted = COVERED * len(frozenset().union(*own))
        held: set[str] = set()
        chosen: list[int] = []
        queue = [(-len(bag) / (len(text) + 4), at) for at, (bag, text) in enumerate(self._pairs(own))]
        heapq.heapify(queue)
        while queue and len(held) < wanted:
            gain, at = heapq.heappop(queue)
            new = -len(own[at] - held) / (len(self.sentences[at]) + 4)
            if new > gain and queue and new > queue[0][0]:  # it gives less than it did: look at the next one first
                heapq.heappush(queue, (new, at))
                continue
            held |= own[at]
            chosen.append(at)
        return tuple(sorted(chosen))

    @cached_property
    def core_length(self) -> int:
        """Characters of the core."""
        return sum(len(self.sentences[at]) + 1 for at in self.core)

    def _pairs(self, own: Sequence[frozenset[str]]) -> Sequence[tuple[frozenset[str], str]]:
        return list(zip(own, self.sentences, strict=True))


class Analyses:
    """Analyses of the texts used last, bounded by what they take in memory; thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Analysis] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, text: str) -> Analysis:
        """Return a text's analysis, made if it is not known."""
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = Analysis(text)
        with self._lock:
            if key not in self._known:
                self._known[key] = made
                self._bytes += _size(made)
                while self._bytes > self._max_bytes:
                    self._bytes -= _size(self._known.popitem(last=False)[1])
        return made

    @property
    def bytes(self) -> int:
        """Return what is held, by estimate."""
        return self._bytes


def _size(analysis: Analysis) -> int:
    return _BYTES_PER_CHARACTER * len(analysis.text) + _OVERHEAD_BYTES
