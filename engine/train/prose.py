"""Text cleaning shared by the sources: Markdown or reStructuredText in, plain sentences out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


Conversation = tuple[Turn, ...]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(`])")
_FENCE = re.compile(r"```.*?(```|\Z)", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
_LABEL = re.compile(r"^\*\*(?P<label>[^*\n]{3,60}?):?\*\*:?\s*(?P<body>.*)$", re.DOTALL)
_NOISE = re.compile(r"https?:|\\[(\[]|[{}<>|=]")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def ask(question: str, answer: str) -> Conversation:
    """Return the conversation of one question and one answer."""
    return (Turn("user", question), Turn("assistant", answer))


def sentences(text: str) -> list[str]:
    """Split plain prose at sentence ends; abbreviations may split too, which does no harm here."""
    return [part for part in (s.strip() for s in _SENTENCE_END.split(text)) if part]


def fill(parts: list[str], budget: int) -> tuple[str, list[str]]:
    """Join leading sentences up to `budget` characters, at least one; return them and the rest."""
    taken: list[str] = []
    length = 0
    for part in parts:
        if taken and length + len(part) > budget:
            break
        taken.append(part)
        length += len(part) + 1
    return " ".join(taken), parts[len(taken) :]


@dataclass(frozen=True)
class Labelled:
    """One point of a Markdown list: its bold label and the sentences under it."""

    label: str
    body: str


def unmark(line: str) -> str:
    """Return a Markdown line without bullet, emphasis, links and heading marks."""
    line = _BULLET.sub("", line)
    line = _LINK.sub(r"\1", line)
    return line.replace("**", "").replace("__", "").strip("# ").strip()


def is_sentence(text: str) -> bool:
    """Tell whether the text reads as a whole sentence rather than a heading or a lead-in."""
    return len(text) >= 25 and text[-1] in ".!?" and text[:1].isupper() and not _NOISE.search(text)


def flatten(markdown: str) -> tuple[list[str], list[Labelled]]:
    """Turn a Markdown answer into its plain sentences, and its labelled points beside them.

    Code blocks, headings and lead-ins that end with a colon are dropped.
    """
    plain: list[str] = []
    points: list[Labelled] = []
    label = ""
    for raw in _FENCE.sub("", markdown).splitlines():
        line = _BULLET.sub("", raw.strip())
        if line.startswith("#"):
            label = unmark(line)
            continue
        found = _LABEL.match(line)
        body = unmark(found["body"] if found else line)
        if found:
            label = unmark(found["label"]).rstrip(":")
        good = [s for s in sentences(body) if is_sentence(s)]
        plain += good
        if good and label and _BULLET.match(raw):
            points.append(Labelled(label, " ".join(good)))
    return plain, points
