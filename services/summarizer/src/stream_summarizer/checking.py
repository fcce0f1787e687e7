"""A model's summary checked against its source: what it can't have read there is dropped. Pure.

A sentence stays when every number, every capitalised word and every identifier in it occurs in the source, and at least
one word that carries content: what shares nothing with the source can't have been read there. What this does not
notice: a false connection between things that do occur, a lost "not".
"""

import re
from typing import Final

import msgspec

from stream_summarizer.terms import content_words, sentences, stem

_NUMBER: Final = re.compile(r"\d+(?:[.,:/-]\d+)*")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_DATE_BREAK: Final = re.compile(r"[:/-]")
_WORD: Final = re.compile(r"\w+(?:[._'\u2019/@-]\w+)*")
_POSSESSIVE: Final = re.compile(r"['\u2019]s?$")
_LABEL: Final = re.compile(r"^\W*(?:(?:system|developer|user|assistant|tool|function) \(\d+\):\s*)?")
_OPENERS: Final = frozenset(
    re.findall(
        r"\w+",
        "a after all also an and as assistant at because before both but by each earlier finally first for from he her"
        " his however if in instead it its later next no not on one other she since so some that the their then there"
        " these they this those to tool two user users we when where which while with you your",
    )
)
"""Words that begin a sentence without being a name."""
_SPEAKERS: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
"""Every sentence is to begin with one of them: they prove nothing."""


class Checked(msgspec.Struct, frozen=True):
    """A summary after the check."""

    text: str  # empty when nothing is left
    dropped: int  # sentences


def check(summary: str, source: str) -> Checked:
    """Drop the sentences that the source does not support.

    Args:
        summary: by a model.
        source: what the model was given.
    """
    numbers = _numbers(source)
    known = {_plain(word) for word in _WORD.findall(source)}
    known.update(piece for word in tuple(known) for piece in re.split(r"[._'\u2019/@-]", word))
    stems = _stems("\n".join(_LABEL.sub("", line) for line in source.splitlines()))
    lines: list[str] = []
    dropped = 0
    for line in summary.splitlines():
        kept = [sentence for sentence in sentences(line) if _supported(sentence, numbers, known, stems)]
        dropped += len(sentences(line)) - len(kept)
        if kept:
            lines.append(" ".join(kept))
    return Checked("\n".join(lines), dropped)


def _supported(sentence: str, numbers: set[str], known: set[str], stems: set[str]) -> bool:
    sentence = _LABEL.sub("", sentence)
    if not _numbers(sentence, parts=False) <= numbers or _stems(sentence).isdisjoint(stems):
        return False
    for position, word in enumerate(_WORD.findall(sentence)):
        plain = _plain(word)
        named = word[:1].isupper() and not (position == 0 and plain in _OPENERS) and plain != "i"
        identifier = any(mark in word for mark in "_/@") or (any(map(str.isdigit, word)) and not word[0].isdigit())
        if (named or identifier) and plain not in known:
            return False
    return True


def _stems(text: str) -> set[str]:
    return {stem(word) for word in content_words(text) - _SPEAKERS}


def _numbers(text: str, *, parts: bool = True) -> set[str]:
    """Return numbers without thousands separators; of dates and times their parts as well."""
    found = set(_NUMBER.findall(_THOUSANDS.sub("", text)))
    if parts:
        found.update(piece for number in tuple(found) for piece in _DATE_BREAK.split(number))
    return found


def _plain(word: str) -> str:
    return _POSSESSIVE.sub("", word).casefold()
