"""Questions and answers from Python's documentation sources (reStructuredText, PSF licence)."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from train.prose import Conversation, ask, fill, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SKIP = frozenset({"c-api", "whatsnew", "includes", "distutils", "install", "extending"})
_ROLE = re.compile(r":[a-z:+-]+:`~?!?([^`<]+?)(?:\s*<[^`>]*>)?`", re.IGNORECASE)
_HYPERLINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
_DIRECTIVE = re.compile(
    r"^(?P<pad> *)\.\. (?P<kind>function|class|method|attribute|exception|data|classmethod|staticmethod|module|opcode)"
    r":: (?P<name>[\w.]+)"
)
_TERM = re.compile(r"^   (?P<name>[^\s:.`][^:]*)$")
_FIELD = re.compile(r":[\w ]+:(\s|$)")
_RULES = ("=", "-", "*", "~", "^", '"', "#")
_ANSWER = 420
_QUESTIONS = {
    "function": ("What does `{}` do?", "What is `{}` for?", "Explain the Python function `{}`.", "How does `{}` work?"),
    "class": ("What is the class `{}`?", "What is `{}` in Python?", "What is `{}` used for?"),
    "method": ("What does the method `{}` do?", "What does `{}` do?", "When should I call `{}`?"),
    "exception": ("When is `{}` raised?", "What does `{}` mean?", "Why do I get a `{}`?"),
    "data": ("What is `{}`?", "What does `{}` mean in Python?", "What is `{}` in Python?"),
    "term": ("What is {} in Python?", "Explain {} in Python.", "What does {} mean in Python?", "Define {}."),
    "title": ("Tell me about {} in Python.", "Explain {}.", "What should I know about {} in Python?"),
}
_ALIAS = {"attribute": "data", "classmethod": "method", "staticmethod": "function", "opcode": "data", "module": "data"}


def plain(text: str) -> str:
    """Return reStructuredText inline markup as plain text with single backquotes around code."""
    text = _HYPERLINK.sub(r"\1", _ROLE.sub(r"\1", text))
    return " ".join(text.replace("``", "`").replace("**", "").replace("*", "").replace("\\ ", "").split())


def _is_markup(body: str) -> bool:
    return body.startswith(("..", ">>>", "* ", "- ", "+", "|", "=")) or bool(_FIELD.match(body))


def _paragraphs(lines: list[str], start: int, indent: int) -> list[str]:
    """Return the prose paragraphs of the block that begins at `start`, indented by `indent` or more."""
    found: list[str] = []
    current: list[str] = []
    for line in lines[start:]:
        body = line.strip()
        depth = len(line) - len(line.lstrip())
        if body and depth < indent:
            break
        if body and depth == indent and not _is_markup(body):
            current.append(body)
            continue
        if body and depth == indent and body.startswith((".. function", ".. method", ".. class")):
            break
        if current:
            found.append(plain(" ".join(current)))
            current = []
        if sum(map(len, found)) > 2 * _ANSWER:
            break
    if current:
        found.append(plain(" ".join(current)))
    return [p for p in found if p[-1] in ".!?" and "::" not in p and "|" not in p]


def _answer(paragraphs: list[str]) -> str:
    parts = [s for p in paragraphs for s in sentences(p)]
    return fill(parts, _ANSWER)[0] if parts else ""


def from_source(text: str, rng: random.Random, *, glossary: bool = False) -> Iterator[Conversation]:
    """Yield question-answer pairs of one source file: its directives, sections and glossary terms."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        kind, name, start, indent = "", "", index + 1, 0
        directive = _DIRECTIVE.match(line)
        if directive:
            kind = _ALIAS.get(directive["kind"], directive["kind"])
            name, indent = directive["name"], len(directive["pad"]) + 3
            while start < len(lines) and lines[start].strip() and not lines[start].strip().startswith(":"):
                start += 1
        elif glossary and (term := _TERM.match(line)):
            kind, name, indent = "term", term["name"].strip(), 6
        elif (
            index
            and line[:3] in {r * 3 for r in _RULES}
            and set(line.strip()) == {line[0]}
            and lines[index - 1].strip()
        ):
            kind, name = "title", plain(lines[index - 1])
        if not kind or len(name) > 90:
            continue
        answer = _answer(_paragraphs(lines, start, indent))
        if len(answer) < 30:
            continue
        if kind == "title" and name.endswith("?"):
            yield ask(name, answer)
        else:
            yield ask(rng.choice(_QUESTIONS[kind]).format(name), answer)


def load(folder: Path, seed: int) -> list[Conversation]:
    """Read every source under `folder` (`*.rst` or `*.rst.txt`) and return question-answer pairs."""
    rng = random.Random(seed)  # noqa: S311  (a seed, so that training can be repeated)
    found: list[Conversation] = []
    for path in sorted([*folder.rglob("*.rst"), *folder.rglob("*.rst.txt")]):
        if path.relative_to(folder).parts[0] not in _SKIP:
            found += from_source(path.read_text(encoding="utf-8"), rng, glossary=path.name.startswith("glossary"))
    return found
