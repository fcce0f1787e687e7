"""Conversations from the project's data folder: the rows whose licence allows training."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import TYPE_CHECKING, Any

from train.prose import Conversation, Turn, ask, fill, flatten, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARE_ALIKE = "CC-BY-SA-4.0"
FREE = frozenset({"MIT", "Apache-2.0", SHARE_ALIKE})
_MARK = re.compile(r"\s*->->.*$", re.DOTALL)
_FOLLOW_UPS = (
    "Can you tell me more?",
    "Tell me more.",
    "Go on.",
    "What else?",
    "Anything else?",
    "Please continue.",
    "Thanks! What else should I know?",
    "Could you explain that further?",
    "And then?",
    "What would you do next?",
)
_LABEL_QUESTIONS = (
    "What can you tell me about {}?",
    "Tell me about {}.",
    "Explain {}.",
    "What about {}?",
    "Any advice on {}?",
    "Why does {} matter?",
    "Give me a tip on {}.",
    "I have a question about {}.",
    "Can you explain {}?",
)
_USER_LIMIT = 420
_ANSWER_LIMITS = (120, 200, 300, 420)


def _short_question(text: str) -> str:
    """Return the user's text, or its last sentences where it is long."""
    text = " ".join(_MARK.sub("", text).split())
    if len(text) <= _USER_LIMIT:
        return text
    kept: list[str] = []
    for part in reversed(sentences(text)):
        if kept and sum(map(len, kept)) + len(part) > _USER_LIMIT:
            break
        kept.insert(0, part)
    return " ".join(kept)[-2 * _USER_LIMIT :]


def _topic(label: str) -> str:
    """Return a heading as it reads inside a sentence: lower case, acronyms kept."""
    return " ".join(word if word[1:].upper() == word[1:] else word.lower() for word in label.split())


def from_long_chat(messages: list[dict[str, Any]], rng: random.Random) -> Iterator[Conversation]:
    """Cut a long chat into short ones: a question, an answer of some sentences, perhaps follow-ups."""
    pending: list[Turn] = []
    for asked, answered in itertools.pairwise(messages):
        if asked["role"] != "user" or answered["role"] != "assistant":
            continue
        question = _short_question(asked["content"])
        rest, points = flatten(answered["content"])
        if not rest or "```" in question:
            continue
        answer, rest = fill(rest, rng.choice(_ANSWER_LIMITS))
        turns = [Turn("user", question), Turn("assistant", answer)]
        while rest and len(turns) < 6 and rng.random() < 0.6:
            answer, rest = fill(rest, rng.choice(_ANSWER_LIMITS))
            turns += [Turn("user", rng.choice(_FOLLOW_UPS)), Turn("assistant", answer)]
        pending += turns
        if rng.random() < 0.7 or len(pending) > 8:
            yield tuple(pending)
            pending = []
        for point in points:
            body = point.body if len(sentences(point.body)) > 1 else ""
            if body and point.label[:1].isalpha():
                yield ask(rng.choice(_LABEL_QUESTIONS).format(_topic(point.label)), fill(sentences(body), 420)[0])
    if pending:
        yield tuple(pending)


def from_row(row: dict[str, Any], rng: random.Random) -> Iterator[Conversation]:
    """Yield the training conversations of one data row, by its kind."""
    kind, messages = row["kind"], row["messages"]
    if kind.startswith("long_chat"):
        yield from from_long_chat(messages, rng)
    elif kind == "meeting":
        for item in row["qa"]:
            yield ask(item["question"], fill(sentences(item["answer"]), 450)[0])
    else:
        turns = [Turn(m["role"], " ".join(m["content"].split())) for m in messages]
        if kind.startswith("short_multiturn"):
            turns += [Turn("user", row["qa"][0]["question"]), Turn("assistant", row["qa"][0]["answer"])]
        if turns and turns[0].role == "user":
            yield tuple(turns)


def load(path: Path, seed: int, *, share_alike: bool = True) -> list[Conversation]:
    """Read `conversations_dev.jsonl` and return short conversations.

    Args:
        path: the JSON-lines file.
        seed: decides where answers are cut and which follow-up questions are put in.
        share_alike: whether rows under CC-BY-SA-4.0 are used.
    """
    rng = random.Random(seed)  # noqa: S311  (a seed, so that training can be repeated)
    found: list[Conversation] = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["licence"] in FREE and (share_alike or row["licence"] != SHARE_ALIKE):
                found += from_row(row, rng)
    return found
