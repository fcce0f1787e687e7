"""Which messages a question points at by their place: "in my first mail", "your last answer", "at the beginning". Pure.

English alone. What is pointed at need not share a word with the question, so no search for words would find it.
"""

import re
from collections.abc import Sequence
from typing import Final

_ORDINALS: Final = {
    "first": 0,
    "1st": 0,
    "second": 1,
    "2nd": 1,
    "third": 2,
    "3rd": 2,
    "fourth": 3,
    "4th": 3,
    "fifth": 4,
    "5th": 4,
    "last": -1,
    "latest": -1,
    "previous": -1,
    "opening": 0,
}
_MAIL: Final = r"e-?mails?|mails?|letters?"
_THINGS: Final = rf"messages?|questions?|requests?|posts?|turns?|prompts?|{_MAIL}"
_REPLIES: Final = r"answers?|replies|reply|responses?|suggestions?|recommendations?|messages?|explanations?"
_ORDINAL: Final = rf"(?P<which>{'|'.join(_ORDINALS)})(?:\s+(?P<but>but|to)\s+one)?"
_OWN: Final = re.compile(rf"\b(?:my|the|our|that)\s+(?:very\s+)?{_ORDINAL}\s+(?P<what>{_THINGS})\b", re.IGNORECASE)
_YOURS: Final = re.compile(rf"\byour\s+(?:very\s+)?{_ORDINAL}\s+(?:{_REPLIES})\b", re.IGNORECASE)
_THING: Final = re.compile(
    rf"\b(?:the\s+)?(?:very\s+)?{_ORDINAL}\s+(?:thing|question)s?\s+(?:that\s+)?i\s+(?:asked|said|told|wrote|wanted)",
    re.IGNORECASE,
)
_SAID_FIRST: Final = re.compile(
    r"\b(?:what\s+did\s+i|i)\s+(?:ask|asked|say|said|write|wrote|tell|told)(?:\s+you)?\s+(?P<which>first|last)\b",
    re.IGNORECASE,
)
_BEGINNING: Final = re.compile(
    r"\b(?:at|in|from)\s+the\s+(?:very\s+)?(?:beginning|start|outset)\b(?!\s+of\s+(?!(?:our|the|this)\s+"
    r"(?:chat|conversation|talk|discussion|meeting|thread)))"
    r"|\bwhen\s+(?:we|i)\s+(?:started|began)\s+(?:talking|chatting|this\s+(?:chat|conversation))|\binitially\b"
    r"|\boriginally\b|\bto\s+begin\s+with\b",
    re.IGNORECASE,
)
_LOOKS_LIKE_MAIL: Final = re.compile(r"^(?:subject|from|to|dear)\b|\b(?:e-?mail|mail|letter)\b", re.IGNORECASE)
_OPENING: Final = 4
"""Messages that are the beginning, at least; of a long conversation a twentieth."""
_OPENING_SHARE: Final = 0.05


def pointed_at(question: str, roles: Sequence[str], texts: Sequence[str]) -> frozenset[int]:
    """Find the messages that a question points at.

    Args:
        question: the last user message.
        roles: of the messages before it, in order.
        texts: of the same.

    Returns:
        Their positions; empty for most questions.
    """
    users = [at for at, role in enumerate(roles) if role == "user"]
    assistants = [at for at, role in enumerate(roles) if role == "assistant"]
    found: set[int] = set()
    for match in _OWN.finditer(question):
        found |= _nth(match, _of_kind(match["what"], users, texts))
    for match in _THING.finditer(question):
        found |= _nth(match, users)
    for match in _SAID_FIRST.finditer(question):
        found |= set(users[:1] if match["which"].lower() == "first" else users[-1:])
    for match in _YOURS.finditer(question):
        found |= _nth(match, assistants)
    if _BEGINNING.search(question):
        spoken = [at for at, role in enumerate(roles) if role in {"user", "assistant"}]
        found |= set(spoken[: max(_OPENING, int(len(spoken) * _OPENING_SHARE))])
    return frozenset(found)


def _of_kind(what: str, users: Sequence[int], texts: Sequence[str]) -> Sequence[int]:
    """Of a user's messages those that are meant: the ones with a question, the mails, or all where none is such."""
    if what.lower().startswith("question"):
        return [at for at in users if "?" in texts[at]] or users
    if re.fullmatch(_MAIL, what, re.IGNORECASE):
        return [at for at in users if _LOOKS_LIKE_MAIL.search(texts[at])] or users
    return users


def _nth(match: re.Match[str], listed: Sequence[int]) -> set[int]:
    place = _ORDINALS[match["which"].lower()]
    if match["but"] is not None and place < 0:
        place -= 1
    return {listed[place]} if -len(listed) <= place < len(listed) else set()
