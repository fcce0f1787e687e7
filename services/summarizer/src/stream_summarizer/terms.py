"""Texts as they are compared: sentences, stemmed words, content words. Pure."""

import re
from collections.abc import Iterable
from typing import Final

LONGEST_SENTENCE: Final = 400
"""Characters; longer runs without an end are cut at a space."""

_BREAK: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f])")
_WORD: Final = re.compile(r"\w+")
_EAST_ASIAN: Final = re.compile("[\u3040-\u9fff\uac00-\ud7af]")
_JOINED: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|_")
_SUFFIX: Final = re.compile(r"(?:ing|edly|ingly|ed|ly|e?s)$")
_LEAST_STEM: Final = 3
_PREFIX: Final = 8
"""Of a word without a known ending at most these first letters are compared: crude, for every language."""

FUNCTION_WORDS: Final = frozenset(
    re.findall(
        r"\S+",
        "a an the and or but if so as of at by for from in into on onto to up with about over under than then"
        " that this these those there here it its itself i me my mine we us our you your yours he him his she"
        " her they them their who whom whose which what when where why how is am are was were be been being do"
        " does did doing have has had having will would shall should can could may might must just too very s"
        " t re ve ll d m",
    )
)
"""English words that carry no content of their own; "not" and "no" do."""
_ASKING: Final = frozenset(
    re.findall(
        r"\S+",
        "mention say said tell told remind recommend conversation please know",
    )
)
"""Words of questions about a conversation that say nothing about what is asked for."""


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
    """Return the words of a text as they are compared: lower case, stemmed; pairs of East Asian characters."""
    found: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if not word.isascii() and _EAST_ASIAN.search(word):
            found.extend(word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        else:
            found.append(stem(word))
    return found


def stem(word: str) -> str:
    """Cut a word's ending off."""
    if len(word) <= _LEAST_STEM or word[0].isdigit():
        return word
    found = _SUFFIX.search(word)
    if found and found.start() >= _LEAST_STEM:
        word = word[: found.start()]
        if len(word) > _LEAST_STEM and word[-1] == word[-2] and word[-1] not in "lsz":
            word = word[:-1]
    if word[-1] in "ey" and len(word) > _LEAST_STEM:
        word = word[:-1]
    return word[:_PREFIX]


def content_words(text: str) -> frozenset[str]:
    """Return the distinct words that carry content, in lower case; all words where a text has no such."""
    found = frozenset(_WORD.findall(text.casefold()))
    return (found - FUNCTION_WORDS) or found


def asked_words(question: str) -> frozenset[str]:
    """Return the stems of a question that tell what it is about; `pickup_time` and `pickupTime` are two words."""
    spread = _JOINED.sub(" ", question)
    return frozenset(words(spread)) - _SILENT


_SILENT: Final = frozenset(map(stem, FUNCTION_WORDS | _ASKING))
