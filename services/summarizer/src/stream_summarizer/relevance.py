"""How much each message has to do with a question: BM25 of the message and of its best sentence, and its neighbours'.

BM25: Robertson and Zaragoza, 2009. An answer stands beside the question that it answers, so a message shares what is
around it, what comes before it more than what comes after it. Pure.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from stream_summarizer.analysis import Analysis
from stream_summarizer.facts import kinds_asked
from stream_summarizer.terms import asked_words, words

_K1: Final = 1.2
_B: Final = 0.75
_OF_MESSAGE: Final = 0.5
"""Of the whole message; the rest is of its best sentence."""
_REACH: Final = 3
_FALLOFF: Final = 0.5
_FORWARD: Final = 0.5
"""A message takes this part of what follows it, and all of what stands before it."""


class Relevance(NamedTuple):
    """Scores against one question; 0 everywhere where it shares no word."""

    messages: list[float]
    sentences: list[list[float]]
    """Per message; share of the question's weight that a sentence holds, 0 to 1."""
    kinds: frozenset[str]
    """Of values that are asked for."""


def relevance(texts: Sequence[Analysis], question: str) -> Relevance:
    """Score messages and sentences.

    Args:
        texts: the messages, in order.
        question: empty when it is not known.
    """
    asked = asked_words(question)
    weight = _rarity(texts, asked)
    whole = sum(weight.values()) or 1.0
    by_sentence = [_shares(text, weight, whole) for text in texts]
    best = [max(scores, default=0.0) for scores in by_sentence]
    by_message = _bm25(texts, weight)
    top, top_best = max(by_message, default=0.0) or 1.0, max(best, default=0.0) or 1.0
    own = [
        _OF_MESSAGE * message / top + (1 - _OF_MESSAGE) * sentence / top_best
        for message, sentence in zip(by_message, best, strict=True)
    ]
    kinds = kinds_asked(asked | frozenset(words(question)))
    return Relevance(_spread(own), by_sentence, kinds)


def _shares(text: Analysis, weight: dict[str, float], whole: float) -> list[float]:
    """Tell per sentence which share of the question's weight it holds."""
    here = [(word, part / whole) for word, part in weight.items() if word in text.bag]
    if not here:
        return [0.0] * len(text.sentences)
    return [sum(part for word, part in here if word in stems) for stems in text.stems]


def _rarity(texts: Sequence[Analysis], asked: frozenset[str]) -> dict[str, float]:
    seen = Counter(word for text in texts for word in asked if word in text.bag)
    return {word: math.log(1 + (len(texts) - count + 0.5) / (count + 0.5)) for word, count in sorted(seen.items())}


def _bm25(texts: Sequence[Analysis], weight: dict[str, float]) -> list[float]:
    mean = sum(text.length for text in texts) / max(len(texts), 1) or 1.0
    return [
        sum(
            rarity * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * text.length / mean))
            for word, rarity in weight.items()
            if (count := text.bag[word])
        )
        for text in texts
    ]


def _spread(own: Sequence[float]) -> list[float]:
    scores = list(own)
    for distance in range(1, _REACH + 1):
        part = _FALLOFF**distance
        for at in range(len(own) - distance):
            scores[at + distance] += part * own[at]
            scores[at] += part * _FORWARD * own[at + distance]
    return scores
