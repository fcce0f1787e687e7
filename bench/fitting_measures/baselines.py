"""What others do with a conversation that is too long: cut it, or cut its messages."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from fitting_measures.survival import Sent, verbatim
from fitting_measures.talks import Messages

PAIRS: Final = 3
EARLIER_CHARACTERS: Final = 200
SUMMARY_TOKENS: Final = 2048
_K1: Final = 1.2
_B: Final = 0.75

Sizes = Sequence[int]
"""Tokens that each message adds to a prompt."""


def tail(messages: Messages, sizes: Sizes, budget: int) -> Sent:
    """Keep the last messages that fit, without a gap."""
    first = len(messages)
    while first and sum(sizes[first - 1 :]) <= budget:
        first -= 1
    return verbatim(messages, range(first, len(messages)))


def pairs(messages: Messages, sizes: Sizes, budget: int, cut: Callable[[str, int], str]) -> Sent:
    """Keep the last three pairs and the first characters of each earlier message, of which the end is cut.

    Args:
        messages: in order.
        sizes: tokens of each.
        budget: tokens.
        cut: shortens a text to so many tokens.
    """
    first = max(len(messages) - 2 * PAIRS, 0)
    while first < len(messages) and sum(sizes[first:]) > budget:
        first += 1
    left = min(budget - sum(sizes[first:]), SUMMARY_TOKENS)
    summary = cut("\n".join(str(m["content"])[:EARLIER_CHARACTERS] for m in messages[:first]), left)
    return verbatim(messages, range(first, len(messages)), summary)


class Bm25:
    """Whole messages by BM25: what a plain search keeps of one conversation."""

    def __init__(self, messages: Messages, sizes: Sizes) -> None:
        bags = [re.findall(r"\w+", str(message["content"]).lower()) for message in messages]
        self._messages, self._sizes = messages, sizes
        self._bags = [Counter(bag) for bag in bags]
        self._lengths = [len(bag) for bag in bags]
        self._seen = Counter(word for bag in self._bags for word in bag)

    def keep(self, budget: int, question: str) -> Sent:
        """Keep the messages that share most with the question; skip one that does not fit."""
        count = len(self._bags)
        mean = sum(self._lengths) / max(count, 1) or 1.0
        asked = sorted(set(re.findall(r"\w+", question.lower())) & set(self._seen))
        rarity = {word: math.log(1 + (count - self._seen[word] + 0.5) / (self._seen[word] + 0.5)) for word in asked}
        scores = [
            sum(
                weight * bag[word] * (_K1 + 1) / (bag[word] + _K1 * (1 - _B + _B * length / mean))
                for word, weight in rarity.items()
                if word in bag
            )
            for bag, length in zip(self._bags, self._lengths, strict=True)
        ]
        kept: list[int] = []
        left = budget
        for position in sorted(range(count), key=lambda at: (-scores[at], at)):
            if self._sizes[position] <= left:
                kept.append(position)
                left -= self._sizes[position]
        return verbatim(self._messages, kept)
