"""A message that is too large by itself: its beginning, its end, and the passages between them that matter. Pure."""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from stream_summarizer.analysis import Analysis
from stream_summarizer.conversation import Message
from stream_summarizer.extract import Passage, rank
from stream_summarizer.terms import LONGEST_SENTENCE, sentences

LEFT_OUT: Final = "[STREAM left out "
_HEAD: Final = 0.25
_TAIL: Final = 0.35
"""What is asked stands at the end of a long message more often than at its beginning."""
_BETWEEN: Final = 0.35
_ASKING: Final = 600
"""Characters at both ends that tell what the passages between must have to do with."""
_PASSAGES_IN: Final = 8
"""Sentences that make a passage."""
_ATTEMPTS: Final = 8


def shortened(message: Message, tokens: int, count: Callable[[str], int], question: str = "") -> Message | None:
    """Shorten a message's text; images and calls stay.

    Args:
        message: with a text.
        tokens: which the text may have.
        count: tokens of a text.
        question: what the passages must have to do with; empty: what the text's own ends say.

    Returns:
        None when not even a few words fit.
    """
    text = message.text
    characters = int(len(text) * tokens / max(count(text), 1))
    for _ in range(_ATTEMPTS):
        if characters < LONGEST_SENTENCE // 4:
            return None
        short = _short(text, characters, question or f"{text[:_ASKING]}\n{text[-_ASKING:]}")
        size = count(short)
        if size <= tokens:
            return _with_text(message, short)
        characters = min(int(characters * tokens / size * 0.97), characters - 1)
    return None


def _short(text: str, characters: int, question: str) -> str:
    head, tail = text[: int(characters * _HEAD)], text[-int(characters * _TAIL) :]
    middle = text[len(head) : len(text) - len(tail)]
    room = int(characters * _BETWEEN)
    between = sentences(middle)
    groups = [" ".join(between[at : at + _PASSAGES_IN]) for at in range(0, len(between), _PASSAGES_IN)]
    passages = [Passage(at, "user", group, len(group)) for at, group in enumerate(groups)]
    found = rank(passages, question, Analysis).select(room) if passages else ""
    kept = "\n".join(line.partition(": ")[2] for line in found.splitlines())
    note = f"{LEFT_OUT}{len(middle) - len(kept):,} of {len(text):,} characters here; these are passages of it:]"
    return f"{head}\n{note}\n{kept}\n[End of the passages.]\n{tail}"


def _with_text(message: Message, text: str) -> Message:
    view: dict[str, Any] = msgspec.json.decode(message.raw)
    content = view.get("content")
    if isinstance(content, list):
        others = [part for part in content if part.get("type") not in {"text", "refusal"}]
        view["content"] = [{"type": "text", "text": text}, *others]
    else:
        view["content"] = text
    raw = json.dumps(view, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return msgspec.structs.replace(message, raw=raw, text=text)
