"""Which text of a conversation is judged: the last user message and what it refers to. Pure.

"continue", "and in French?" and "now prove it" are short, but the work they ask for is that of the question that they
refer to. So the text judged is the last user message that stands on its own (the anchor), followed by those that lean
on it. A thank-you leans on nothing.

| last user message                | judged text                                             |
|----------------------------------|---------------------------------------------------------|
| stands on its own                | itself                                                  |
| refers back                      | anchor, up to `CHAIN` messages between, itself          |
| refers back, no user turn before | the assistant's turn before it, itself                  |
| a greeting or thanks             | itself                                                  |
| none at all                      | the last turn that has text, of whatever role           |

Sentences that tell the judge what to answer are taken out (`orders`). System prompts and tool results set the scene
of every question alike; they are not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stream_judge.excerpt import excerpt
from stream_judge.orders import without_orders
from stream_judge.vocabulary import COURTESY, POINTS_BACK, REFERS, REFERS_IF_TERSE, WORD

CHAIN = 4
"""Messages that lean on the anchor, the last one included."""
LOOK_BACK = 64
"""Turns before the last user message that are looked at."""
TAIL_TURNS = 4
TAIL_CHARS = 600
"""Of one turn in the tail."""
_REFERRING_CHARS = 160
_REFERRING_WORDS = 14
_POINTING_WORDS = 9
_TERSE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is judged."""

    text: str
    """Bounded: excerpts of the turns that count, the oldest first."""
    length: int
    """Characters of those turns before they were cut."""
    inherited: bool
    """The last message refers back: earlier turns are part of the text."""
    depth: int
    """User turns up to the last one."""


def refers_back(text: str) -> bool:
    """Tell whether a message can only be understood with what was said before it."""
    if len(text) > _REFERRING_CHARS:
        return False
    lowered = text.strip().lower()
    words = len(WORD.findall(lowered))
    if not lowered or words > _REFERRING_WORDS or is_courtesy(lowered):
        return False
    if REFERS.match(lowered):
        return True
    if words <= _TERSE_WORDS and REFERS_IF_TERSE.match(lowered):
        return True
    return words <= _POINTING_WORDS and POINTS_BACK.search(lowered) is not None


def is_courtesy(text: str) -> bool:
    """Tell whether the whole message is a greeting, a thank-you or a farewell."""
    return len(text) <= _REFERRING_CHARS and COURTESY.fullmatch(text.lower()) is not None


def select(turns: Sequence[Turn]) -> Question:
    """Choose the text to judge.

    Args:
        turns: the oldest first; the last user turn is the question.

    Returns:
        The question; with no text in any turn, an empty one.
    """
    users = [index for index, turn in enumerate(turns) if turn.role == "user" and turn.text.strip()]
    if not users:
        last = next((turn.text for turn in reversed(turns) if turn.text.strip()), "")
        text, length = _judged([last])
        return Question(text, length, inherited=False, depth=0)
    chain = [turns[users[-1]].text]
    if refers_back(chain[0]):
        chain = _antecedents(turns, users) + chain
    text, length = _judged(chain)
    return Question(
        text=text,
        length=length,
        inherited=len(chain) > 1,
        depth=len(users),
    )


def tail(turns: Sequence[Turn]) -> str:
    """Write the turns before the last user message as a language model reads them; system prompts are left out.

    Args:
        turns: the oldest first.

    Returns:
        The last `TAIL_TURNS` that have text, each with its role and at most `TAIL_CHARS` of it; often nothing.
    """
    users = [index for index, turn in enumerate(turns) if turn.role == "user" and turn.text.strip()]
    before = [turn for turn in turns[: users[-1] if users else 0] if turn.role != "system" and turn.text.strip()]
    return "\n".join(f"{turn.role}: {without_orders(ends(turn.text, TAIL_CHARS))}" for turn in before[-TAIL_TURNS:])


def ends(text: str, most: int) -> str:
    """Cut the middle out of a text that is longer than this."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n[...]\n{text[-half:]}"


def _judged(chain: Sequence[str]) -> tuple[str, int]:
    """Cut turns down to what is judged, and tell their whole length less the orders."""
    cut = [excerpt(text) for text in chain]
    kept = [without_orders(text) for text in cut]
    return "\n\n".join(kept), sum(map(len, chain)) - sum(map(len, cut)) + sum(map(len, kept))


def _antecedents(turns: Sequence[Turn], users: Sequence[int]) -> list[str]:
    """Find what the last user message leans on, the oldest first."""
    between: list[str] = []
    for index in reversed(users[:-1][-LOOK_BACK:]):
        text = turns[index].text
        if is_courtesy(text):
            continue
        if not refers_back(text):
            return [text, *reversed(between)]
        if len(between) < CHAIN - 1:
            between.append(text)
    assistant = next((t.text for t in reversed(turns[: users[-1]]) if t.role == "assistant" and t.text.strip()), None)
    return [*([assistant] if assistant is not None else []), *reversed(between)]
