"""The conversations of a folder, as requests would carry them, with their questions."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

KINDS: Final = ("task_dialogue", "long_chat", "meeting", "short")
_ROLES: Final = {"user", "assistant", "system"}
_RUBRIC: Final = re.compile(r"^LLM response should (?:\w+):\s*", re.IGNORECASE)

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """One question, and what must survive to answer it."""

    type: str
    text: str
    accepted: tuple[str, ...]
    """Strings of which one answers it; empty where an answer is no string."""
    evidence: tuple[int, ...]
    """Positions of the messages that carry the evidence."""


@dataclass(frozen=True)
class Talk:
    """One conversation."""

    id: str
    kind: str
    """One of `KINDS`."""
    window: bool
    """Whether it is a part of a long chat, of about 13,000 tokens of usual vocabularies."""
    messages: Messages
    questions: tuple[Question, ...]


def read_talks(folder: Path) -> list[Talk]:
    """Read `conversations_*.jsonl` of a folder.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(folder.glob("conversations_*.jsonl"))
    if not files:
        raise SystemExit(f"no conversations_*.jsonl in {folder}")
    return [_talk(json.loads(line)) for file in files for line in file.read_text("utf-8").splitlines() if line.strip()]


def _talk(row: dict[str, Any]) -> Talk:
    kind = next(kind for kind in KINDS if row["kind"].startswith(kind))
    place = {message["id"]: position for position, message in enumerate(row["messages"])}
    messages = [_message(message) for message in row["messages"]]
    whole = "\n".join(message["content"] for message in messages)
    questions = tuple(_question(item, kind, place, whole) for item in row["qa"])
    return Talk(row["id"], kind, row["kind"].endswith("window"), messages, questions)


def _message(row: dict[str, Any]) -> dict[str, Any]:
    """A meeting's speaker is a user who says his name first."""
    if row["role"] in _ROLES:
        return {"role": row["role"], "content": row["content"]}
    return {"role": "user", "content": f"{row['role']}: {row['content']}"}


def _question(item: dict[str, Any], kind: str, place: dict[Any, int], whole: str) -> Question:
    ids = item["source_msg_ids"]
    if item.get("span_pairs"):
        spans: Iterator[tuple[int, int]] = zip(ids[::2], ids[1::2], strict=True)
        ids = [number for first, last in spans for number in range(first, last + 1)]
    evidence = tuple(sorted({place[number] for number in ids if number in place}))
    return Question(item["type"], item["question"], _accepted(item, kind, whole), evidence)


def _accepted(item: dict[str, Any], kind: str, whole: str) -> tuple[str, ...]:
    """Accepted strings; for information extraction those of its rubric that stand in the conversation at all."""
    if kind == "task_dialogue":
        return tuple(str(value) for value in item.get("acceptable") or [item["answer"]])
    if item["type"] != "information_extraction":
        return ()
    said = [_RUBRIC.sub("", line).strip() for line in item.get("rubric", ())]
    return tuple(text for text in said if text and plain(text) in plain(whole))


def plain(text: str) -> str:
    """Write a text as strings are compared: lower case, single spaces."""
    return " ".join(text.casefold().split())
