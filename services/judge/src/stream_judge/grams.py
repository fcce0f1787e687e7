"""The words of a text and its pairs of neighbours, as numbers that name them. Pure.

A gram is named by the CRC-32 of its text, so the weights hold no text, and a lookup costs a fraction of a microsecond.
Words with which somebody would tell the judge what to answer ("this is LOW, use the local tier") are not counted at
all: they are passed over as if they were not there.
"""

import re
from collections import Counter
from zlib import crc32

_TOKEN = re.compile(r"[a-z]+|\d|[^\w\s]")
_ASCII_TOKEN = re.compile(rb"[a-z]+|[0-9]|[^a-z0-9_\s\x1c-\x1f]")
"""The same on bytes, for text that is ASCII only: those need not be encoded one by one."""
_VERDICTS = (
    "low medium high easy easiest hard hardest simple difficult difficulty trivial complex demanding judge judges "
    "classify classified classifier route routed router routing tier tiers local cloud hpc model models score scores "
    "level levels label verdict rate rated rating cheap cheapest expensive ignore disregard previous instructions "
    "instruction system assistant prompt probability confidence answered answer"
)
VERDICT_WORDS = frozenset(_VERDICTS.split())
"""Words of verdicts; passed over."""
_VERDICT_BYTES = frozenset(word.encode() for word in VERDICT_WORDS)


def grams(text: str) -> Counter[int]:
    """Count words and pairs.

    Args:
        text: bounded, of any characters; letters outside a-z and digits are one unknown each or nothing.
    """
    lowered = text.lower()
    if lowered.isascii():
        words = [word for word in _ASCII_TOKEN.findall(lowered.encode("ascii")) if word not in _VERDICT_BYTES]
    else:
        found = [word.encode("utf-8", "surrogatepass") for word in _TOKEN.findall(lowered)]
        words = [word for word in found if word not in _VERDICT_BYTES]
    names = [crc32(word) for word in words]
    counts = Counter(names)
    # A CRC goes on from where another one ended: the pair's is that of its first word, and a space, and the second.
    counts.update([crc32(b" " + word, name) for word, name in zip(words[1:], names, strict=False)])
    return counts
