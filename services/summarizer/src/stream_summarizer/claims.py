"""What a text claims: values with the words around them, and whether it says that something changed. Pure.

Patterns of English. A question claims nothing ("should I change it to Friday?").
"""

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from stream_summarizer.facts import Fact, facts_of
from stream_summarizer.terms import FUNCTION_WORDS, content_words, stem, words

Cue = Literal["opens", "within", ""]
"""Whether a word of change opens the sentence, or stands somewhere before the value."""
_BEFORE: Final = 56
_AFTER: Final = 32
"""Characters around a value that tell what it is the value of."""
_MOST: Final = 48
"""Of one text; who claims more pastes a document."""
_OPENS: Final = re.compile(
    r"^\W*(?:no|nope|actually|correction|sorry|oops|wait|scratch\s+that|my\s+mistake|i\s+(?:meant|was\s+wrong)|from\s+now\s+on"
    r"|on\s+second\s+thoughts?|(?:please\s+)?(?:change|make|switch|update|correct|move)\s+(?:it|that|this|the|my|our))\b",
    re.IGNORECASE,
)
_WITHIN: Final = re.compile(
    r"\b(?:i\s+(?:actually\s+)?meant|actually|rather\s+than|instead|no\s+longer|turns\s+out|new|now|updated?|extend(?:ed)?"
    r"|shorten(?:ed)?|increased?|reduced?|raised?|lowered|changed?|moved?|switch(?:ed)?|postponed?|rescheduled?|replaced?"
    r"|corrected)\b",
    re.IGNORECASE,
)
_SUBJECT: Final = re.compile(
    r"^(?:\W*(?:and|but|so|no|actually|well|sorry|by\s+the\s+way|please\s+note)\b\W*)*"
    r"((?:my|our|the|his|her|its|their)\s[^,.;:?!]{2,60}?)\s(?:is|are|was|will\s+be|costs?|has\s+become|moves?\s+to)\s",
    re.IGNORECASE,
)
_SHORT: Final = 160
"""Characters; in a longer sentence how it opens, and its subject, say little about a value at its end."""


class Claim(NamedTuple):
    """One value in one sentence."""

    fact: Fact
    unit: str
    """Of a number, the stem of what is counted; else empty."""
    near: frozenset[str]
    """Stems of the words around it."""
    cue: Cue
    """How clearly it is said to be a change."""
    subject: frozenset[str]
    """Stems of what a short sentence is about ("The rent of the flat is ..."); empty for others."""
    replaces: str
    """Key of the value that it is said to replace ("May 3, not May 2"); empty for most."""


def claims_of(sentences: Sequence[str]) -> tuple[Claim, ...]:
    """List what sentences claim, in order; at most so much that a pasted document costs little."""
    found: list[Claim] = []
    for sentence in sentences:
        if len(found) >= _MOST:
            break
        if not sentence.endswith("?"):
            found.extend(_claims(sentence))
    return tuple(found)


def _claims(sentence: str) -> list[Claim]:
    facts = facts_of(sentence)
    if not facts:
        return []
    short = len(sentence) <= _SHORT
    about = _SUBJECT.match(sentence) if short else None
    subject = frozenset(map(stem, content_words(about[1]))) if about else frozenset[str]()
    opens = short and _OPENS.search(sentence) is not None
    spans = _spans(sentence, facts)
    replaced = _replaced(sentence, facts, spans)
    return [
        Claim(
            fact,
            _unit(fact),
            frozenset(words(f"{before} {after}")) - _SILENT,
            "opens" if opens else ("within" if _WITHIN.search(before) else ""),
            subject,
            replaced.get(fact.key, ""),
        )
        for fact, (before, after) in zip(facts, _around(sentence, facts, spans), strict=True)
    ]


def _spans(sentence: str, facts: Sequence[Fact]) -> list[tuple[int, int]]:
    """Find where the values stand."""
    spans: list[tuple[int, int]] = []
    end = 0
    for fact in facts:
        start = max(sentence.find(fact.text, end), 0)
        end = start + len(fact.text)
        spans.append((start, end))
    return spans


def _unit(fact: Fact) -> str:
    if fact.kind != "number":
        return ""
    counted = fact.key.partition(" ")[2]
    return "" if counted in FUNCTION_WORDS else stem(counted)


def _around(sentence: str, facts: Sequence[Fact], spans: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    """Cut out the words before and after each value, but not past another one of its kind: those belong to that."""
    found: list[tuple[str, str]] = []
    for fact, (start, end) in zip(facts, spans, strict=True):
        alike = [span for other, span in zip(facts, spans, strict=True) if other.kind == fact.kind]
        first = max([start - _BEFORE, 0, *(stop for _, stop in alike if stop <= start)])
        last = min([end + _AFTER, *(begin for begin, _ in alike if begin >= end)])
        # Without the word that the window's edge cuts.
        before = sentence[first:start].partition(" ")[2] if first else sentence[:start]
        after = sentence[end:last].rpartition(" ")[0] if last < len(sentence) else sentence[end:]
        found.append((before, after))
    return found


_SILENT: Final = frozenset(map(stem, FUNCTION_WORDS)) | frozenset(
    map(stem, re.findall(r"\w+", "no not actually instead rather now new change make get want update also really"))
)


_NOT_THAT: Final = re.compile(
    r"\W*(?:and\s+)?(?:instead\s+of|rather\s+than|not)\s+(?:(?:the|a|an|on|at|in|for)\s+)?", re.IGNORECASE
)
_BUT: Final = re.compile(r"\W*but\s+(?:(?:rather|the|a|an|on|at|in|for)\s+)*", re.IGNORECASE)
_NOT: Final = re.compile(r"\bnot\s+(?:(?:the|a|an|on|at|in|for)\s+)?$", re.IGNORECASE)
_INTO: Final = re.compile(r"\s*(?:to|with|into|by|->|\u2192)\s+(?:(?:the|a|an)\s+)?", re.IGNORECASE)
_CHANGE: Final = re.compile(
    r"\b(?:chang|switch|mov|updat|replac|swap|shift|postpon|reschedul|rais|lower|increas|reduc|correct|extend|shorten|push)"
    r"\w*\b[^.!?]{0,40}$",
    re.IGNORECASE,
)


def _replaced(sentence: str, facts: Sequence[Fact], spans: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Find neighbouring values of which one replaces the other: the new one's key with the old one's."""
    found: dict[str, str] = {}
    for at in range(len(facts) - 1):
        (start, middle), (other, _) = spans[at], spans[at + 1]
        between, ahead = sentence[middle:other], sentence[:start]
        if _NOT_THAT.fullmatch(between):
            found[facts[at].key] = facts[at + 1].key
        elif (_BUT.fullmatch(between) and _NOT.search(ahead)) or (_INTO.fullmatch(between) and _CHANGE.search(ahead)):
            found[facts[at + 1].key] = facts[at].key
    return found
