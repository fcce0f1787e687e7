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


def bm25(messages: Messages, sizes: Sizes, budget: int, question: str) -> Sent:
    """Keep the whole messages that share most with the question; skip one that does not fit."""
    bags = [re.findall(r"\w+", str(message["content"]).lower()) for message in messages]
    mean = sum(map(len, bags)) / max(len(bags), 1) or 1.0
    seen = Counter(word for bag in bags for word in set(bag))
    asked = set(re.findall(r"\w+", question.lower())) & set(seen)
    rarity = {word: math.log(1 + (len(bags) - seen[word] + 0.5) / (seen[word] + 0.5)) for word in sorted(asked)}
    scores = [
        sum(
            weight * count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * len(bag) / mean))
            for word, weight in rarity.items()
            if (count := counted[word])
        )
        for bag in bags
        for counted in [Counter(bag)]
    ]
    kept: list[int] = []
    left = budget
    for position in sorted(range(len(messages)), key=lambda at: (-scores[at], at)):
        if sizes[position] <= left:
            kept.append(position)
            left -= sizes[position]
    return verbatim(messages, kept)
