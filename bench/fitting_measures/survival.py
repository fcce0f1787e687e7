"""What survived of a conversation in what is sent to the model."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fitting_measures.talks import KINDS, Messages, Question, Talk, plain

ENOUGH: Final = 0.6
"""Share of a message's content words that must stand in the summary."""
_WORD: Final = re.compile(r"\w+")
_FUNCTION_WORDS: Final = frozenset(
    re.findall(
        r"\S+",
        "a an the and or but if so as of at by for from in into on onto to up with about over under than then"
        " that this these those there here it its itself i me my mine we us our you your yours he him his she"
        " her they them their who whom whose which what when where why how is am are was were be been being do"
        " does did doing have has had having will would shall should can could may might must not no nor just"
        " too very s t re ve ll d m don didn doesn isn wasn",
    )
)


@dataclass(frozen=True)
class Sent:
    """What a model would see of the conversation; the question is not part of it."""

    kept: frozenset[int]
    """Positions of the messages that stand there word for word."""
    summary: str
    texts: tuple[str, ...]
    """Of everything: kept messages and summary."""
    lines: Mapping[int, str] | None = None
    """What the summary says of each message, where it tells; None: no message's words can be told apart."""


NOTHING: Final = Sent(frozenset(), "", ())


def content_words(text: str) -> frozenset[str]:
    """Return the distinct words that carry content; all words where a text has no such."""
    words = frozenset(_WORD.findall(text.casefold()))
    return (words - _FUNCTION_WORDS) or words


class Survival:
    """Tells for one way of fitting one conversation what survived."""

    def __init__(self, talk: Talk, sent: Sent) -> None:
        self._talk = talk
        self._sent = sent
        self._summary = frozenset(_WORD.findall(sent.summary.casefold()))
        self._said = plain("\n".join(sent.texts))

    def message(self, position: int, *, strict: bool = False) -> bool:
        """Whether a message's content survived: verbatim, or enough of its words in the summary.

        Args:
            position: of the message.
            strict: only what the summary says of this very message counts.
        """
        if position in self._sent.kept:
            return True
        words = content_words(self._talk.messages[position]["content"])
        summary = self._summary
        if strict and self._sent.lines is not None:
            summary = frozenset(_WORD.findall(self._sent.lines.get(position, "").casefold()))
        return bool(words) and len(words & summary) >= ENOUGH * len(words)

    def answer(self, question: Question) -> bool:
        """Whether an accepted answer is still there, as a string."""
        return any(plain(text) in self._said for text in question.accepted)


@dataclass
class Tally:
    """One share a question, by kind."""

    evidence: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    strict: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answers: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    stale: list[float] = field(default_factory=list)

    def add(self, talk: Talk, question: Question, sent: Sent) -> None:
        """Count one question; each weighs the same, however many messages carry its evidence."""
        survival = Survival(talk, sent)
        if question.evidence:
            found = [survival.message(position) for position in question.evidence]
            strict = [survival.message(position, strict=True) for position in question.evidence]
            self.evidence[talk.kind].append(sum(found) / len(found))
            self.strict[talk.kind].append(sum(strict) / len(strict))
            if question.type == "knowledge_update" and len(found) > 1:
                self.stale.append(float(any(found[:-1]) and not found[-1]))
        if question.accepted:
            self.answers[talk.kind].append(float(survival.answer(question)))

    def row(self) -> dict[str, dict[str, float | None]]:
        """Both recalls by kind; None where there is nothing to count."""
        return {
            kind: {"answer_string_recall": mean(self.answers[kind]), "evidence_recall": mean(self.evidence[kind])}
            for kind in KINDS
        }


def mean(shares: Iterable[float]) -> float | None:
    """Average; None of nothing."""
    listed = list(shares)
    return round(sum(listed) / len(listed), 4) if listed else None


def verbatim(messages: Messages, positions: Iterable[int], summary: str = "") -> Sent:
    """Describe what is sent when these messages stay as they are."""
    kept = frozenset(positions)
    texts = tuple(str(messages[position]["content"]) for position in sorted(kept))
    return Sent(kept, summary, (summary, *texts) if summary else texts)
