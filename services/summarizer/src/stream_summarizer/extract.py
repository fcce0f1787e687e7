"""Extractive condensing: the sentences that matter, in their own words and order, within a token budget. Pure.

A sentence scores by the mean rarity of its words (TF-IDF over the condensed part), by the facts in it (numbers, names,
identifiers, corrections), by who said it, and by what it shares with the last question: BM25 (Robertson and Zaragoza,
2009) of the sentence and, at a lower weight, of the message it stands in. The best per token win; equal scores go to
the later sentence, since a correction comes after what it corrects.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Final

import msgspec

LONGEST_SENTENCE: Final = 400
"""Characters; longer runs without an end are cut at a space."""
GAP: Final = " ... "

_K1: Final = 1.2
_B: Final = 0.75
_QUESTION_WEIGHT: Final = 1.5
_MESSAGE_WEIGHT: Final = 0.7
_FACT_WEIGHT: Final = 0.1
_COST_EXPONENT: Final = 0.75
_ROLE_WEIGHT: Final = {"system": 2.0, "developer": 2.0, "user": 1.25, "tool": 0.9, "function": 0.9}
_STEM: Final = 6
"""Words are compared by their first letters: a stemmer for every language, crude and without a word list."""

_BREAK: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])")
_WORD: Final = re.compile(r"\w+")
_EAST_ASIAN: Final = re.compile("[\u3040-\u9fff\uac00-\ud7af]")
_FACT: Final = re.compile(
    r"\d[\d.,:/%-]*"  # numbers, dates, amounts
    r"|(?<=[\w,;:)] )[A-Z][\w.-]+"  # names: a capital inside a sentence
    r"|\w+[_@/\\.]\w[\w@/\\.-]*|`[^`]+`"  # identifiers, addresses, code
    r"|\b(?:instead|actually|no longer|changed?|moved|correction|must|never|always|please|remember|prefer)\b"
)

_LABEL_TOKENS: Final = 6
_ATTEMPTS: Final = 5
_FULL: Final = 0.92
"""A selection that uses this share of its budget is good enough."""
_SHRINK: Final = 0.97


class Passage(msgspec.Struct, frozen=True):
    """One message's text, as the extraction sees it."""

    index: int  # of the message in the request
    role: str
    text: str
    tokens: int  # of the text, roughly


class _Sentence(msgspec.Struct, frozen=True):
    passage: int  # position among the passages
    position: int  # among its passage's sentences
    text: str
    tokens: float
    score: float


class Ranking:
    """The sentences of a part, best first; made once, cut to any budget."""

    def __init__(self, passages: Sequence[Passage], ranked: Sequence[_Sentence]) -> None:
        self._passages = passages
        self._ranked = ranked

    def select(self, tokens: float) -> str:
        """Return the best sentences that fit, in their order, a line a message: "user (3): ...".

        Args:
            tokens: budget, by the passages' own rough counts.
        """
        left = tokens
        chosen: list[_Sentence] = []
        open_passages: set[int] = set()
        seen: set[str] = set()
        for sentence in self._ranked:
            cost = sentence.tokens + (0 if sentence.passage in open_passages else _LABEL_TOKENS)
            if cost > left or sentence.text in seen:
                continue
            seen.add(sentence.text)
            open_passages.add(sentence.passage)
            chosen.append(sentence)
            left -= cost
        return self._write(chosen)

    def within(self, tokens: int, count: Callable[[str], int]) -> str:
        """Return a selection that `count` finds within the budget, and close to it where there is enough to say.

        Args:
            tokens: budget, by `count`.
            count: tokens of a text.
        """
        best = ""
        allowance = float(tokens)
        for _ in range(_ATTEMPTS):
            text = self.select(allowance)
            if not text:
                break
            size = max(count(text), 1)
            if size <= tokens:
                best = max(best, text, key=len)
                if size >= _FULL * tokens or len(best) >= self.whole_length:
                    break
            allowance *= tokens / size * (1.0 if size <= tokens else _SHRINK)
        return best

    @cached_property
    def whole_length(self) -> int:
        """Return the characters of the selection that leaves nothing out."""
        return len(self.select(math.inf))

    def _write(self, chosen: Iterable[_Sentence]) -> str:
        lines: list[str] = []
        previous: _Sentence | None = None
        for sentence in sorted(chosen, key=lambda item: (item.passage, item.position)):
            if previous is not None and sentence.passage == previous.passage:
                lines[-1] += (" " if sentence.position == previous.position + 1 else GAP) + sentence.text
            else:
                passage = self._passages[sentence.passage]
                lines.append(f"{passage.role} ({passage.index}): {sentence.text}")
            previous = sentence
        return "\n".join(lines)


def sentences(text: str) -> list[str]:
    """Split a text into sentences and lines, none longer than `LONGEST_SENTENCE`; what has no word is left out."""
    found: list[str] = []
    for line in text.splitlines():
        for sentence in _BREAK.split(line):
            found.extend(piece for piece in _pieces(sentence.strip()) if _WORD.search(piece))
    return found


def _pieces(sentence: str) -> Iterable[str]:
    start = 0
    while len(sentence) - start > LONGEST_SENTENCE:
        cut = sentence.rfind(" ", start + 1, start + LONGEST_SENTENCE)
        cut = cut if cut > 0 else start + LONGEST_SENTENCE
        yield sentence[start:cut].strip()
        start = cut
    yield sentence[start:].strip()


def words(text: str) -> list[str]:
    """Return the words of a text as they are compared: lower case, first letters; pairs of East Asian characters."""
    plain = _WORD.findall(text.lower())
    if text.isascii():
        return [word[:_STEM] for word in plain]
    found: list[str] = []
    for word in plain:
        if _EAST_ASIAN.search(word):
            found.extend(word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        else:
            found.append(word[:_STEM])
    return found


def rank(passages: Sequence[Passage], question: str) -> Ranking:
    """Score every sentence.

    Args:
        passages: what is to be condensed, in order.
        question: the last question; empty when it is not known.
    """
    texts = [sentences(passage.text) for passage in passages]
    bags = [[words(text) for text in group] for group in texts]
    frequency = Counter(word for group in bags for bag in group for word in set(bag))
    total = sum(map(len, bags))
    rarity = {word: math.log(1 + total / seen) for word, seen in frequency.items()}
    asked = {word for word in words(question) if word in rarity}
    flat = [bag for group in bags for bag in group]
    by_sentence = _bm25(flat, asked)
    by_message = _bm25([[word for bag in group for word in bag] for group in bags], asked)
    strongest = max(by_sentence, default=0.0) or 1.0
    strongest_message = max(by_message, default=0.0) or 1.0
    typical = math.log(1 + total) or 1.0
    ranked: list[_Sentence] = []
    number = 0
    for place, (passage, group) in enumerate(zip(passages, texts, strict=True)):
        per_character = passage.tokens / max(len(passage.text), 1)
        for position, text in enumerate(group):
            bag = flat[number]
            salience = sum(rarity[word] for word in bag) / (len(bag) + 2) / typical
            facts = min(len(_FACT.findall(text)), 4) * _FACT_WEIGHT
            shared = by_sentence[number] / strongest + _MESSAGE_WEIGHT * by_message[place] / strongest_message
            score = (salience + facts) * _ROLE_WEIGHT.get(passage.role, 1.0) + _QUESTION_WEIGHT * shared
            tokens = per_character * len(text) + 1
            ranked.append(_Sentence(place, position, text, tokens, score * tokens ** (_COST_EXPONENT - 1)))
            number += 1
    ranked.sort(key=lambda item: (-item.score, -item.passage, item.position))
    return Ranking(passages, ranked)


def _bm25(bags: Sequence[Sequence[str]], asked: set[str]) -> list[float]:
    """Score each bag of words against the question's words."""
    if not asked:
        return [0.0] * len(bags)
    hits = [Counter(word for word in bag if word in asked) for bag in bags]
    seen = Counter(word for hit in hits for word in hit)
    rarity = {word: math.log(1 + (len(bags) - n + 0.5) / (n + 0.5)) for word, n in seen.items()}
    mean = sum(map(len, bags)) / max(len(bags), 1) or 1.0
    return [
        sum(
            rarity[word] * n * (_K1 + 1) / (n + _K1 * (1 - _B + _B * len(bag) / mean))
            for word, n in sorted(hit.items())
        )
        for hit, bag in zip(hits, bags, strict=True)
    ]
