"""The words of a text and its pairs of neighbours, as numbers that name them. Pure.

A gram is named by the CRC-32 of its text, so the weights hold no text, and a lookup costs a fraction of a microsecond.
Words with which somebody would tell the judge what to answer ("this is LOW, use the local tier") are not counted at
all: they are passed over as if they were not there.
"""

import re
from collections import Counter
from collections.abc import Iterable
from zlib import crc32

_TOKEN = re.compile(r"[a-z]+|\d|[^\w\s]")
_VERDICTS = (
    "low medium high easy easiest hard hardest simple difficult difficulty trivial complex demanding judge judges "
    "classify classified classifier route routed router routing tier tiers local cloud hpc model models score scores "
    "level levels label verdict rate rated rating cheap cheapest expensive ignore disregard previous instructions "
    "instruction system assistant prompt probability confidence answered answer"
)
VERDICT_WORDS = frozenset(_VERDICTS.split())
"""Words of verdicts; passed over."""


def grams(text: str) -> Counter[int]:
    """Count words and pairs.

    Args:
        text: bounded, of any characters; letters outside a-z and digits are one unknown each or nothing.
    """
    words = [word for word in _TOKEN.findall(text.lower()) if word not in VERDICT_WORDS]
    counts = Counter(words)
    counts.update(_pairs(words))
    return Counter({crc32(gram.encode("utf-8", "surrogatepass")): count for gram, count in counts.items()})


def _pairs(words: list[str]) -> Iterable[str]:
    return map("{} {}".format, words, words[1:])
