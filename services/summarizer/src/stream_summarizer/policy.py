"""What stays word for word and what is condensed: token counts in, a plan out. Pure.

In order of precedence:

1. the system prompt (the leading system and developer messages), the last user message and the last unit always stay;
2. other system and developer messages stay while they fit, the newest first;
3. the latest units stay, without a gap, while they fit into what the summary leaves free;
4. everything else is condensed into one marked message behind the system prompt.

The border between 3 and 4 moves in steps, measured from the start of the conversation, which a client repeats on
every turn: the condensed part is then the same for several turns and its summary is found in the cache.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from stream_summarizer.conversation import INSTRUCTING, Conversation, Message

RECENT_SHARE: Final = 0.2
"""Of the tokens left by what must stay: how much the latest units may take; the summary gets the rest."""
STEPS: Final = 10
"""The border moves in steps of a budget's tenth."""
MARK: Final = "[Summary of messages "
ACKNOWLEDGEMENT: Final = "Noted."
ESTIMATE_MARGIN_TOKENS: Final = 32
_SPANS_IN_WORDS: Final = 6


class Budget(msgspec.Struct, frozen=True):
    """What a prompt may take."""

    context_window: int  # tokens of the model, prompt and answer together
    reserved_output: int  # tokens kept free for the answer
    margin_share: float = 0.0  # of the window, kept free where a count is an estimate

    def tokens(self, *, exact: bool) -> int:
        """Return how many tokens a prompt may have whose count is exact, or is not."""
        margin = 0 if exact else ESTIMATE_MARGIN_TOKENS + int(self.context_window * self.margin_share)
        return max(self.context_window - self.reserved_output - margin, 0)


class Span(msgspec.Struct, frozen=True):
    """Messages first..last of the request, both inclusive."""

    first: int
    last: int


class Plan(msgspec.Struct, frozen=True):
    """Which units stay."""

    keep: tuple[bool, ...]  # per unit
    summary_tokens: int  # what the summary message may take; 0: nothing is condensed, or there is no room for it


def leading_instructions(conversation: Conversation) -> int:
    """Count the messages of the system prompt: the system and developer messages before any other."""
    return next((m.index for m in conversation.messages if m.role not in INSTRUCTING), len(conversation.messages))


def indispensable(conversation: Conversation) -> tuple[bool, ...]:
    """Tell per unit whether it always stays: system prompt, last user message, last unit."""
    leading = leading_instructions(conversation)
    last_user = max((m.index for m in conversation.messages if m.role == "user"), default=-1)
    end = len(conversation.units) - 1
    return tuple(
        unit.last < leading or unit.first <= last_user <= unit.last or position == end
        for position, unit in enumerate(conversation.units)
    )


def plan(
    conversation: Conversation,
    unit_tokens: Sequence[int],
    fixed_tokens: int,
    budget_tokens: int,
) -> Plan:
    """Decide which units stay.

    Args:
        conversation: as parsed.
        unit_tokens: per unit.
        fixed_tokens: of the prompt apart from its messages (tools, the template's frame).
        budget_tokens: what the whole prompt may take.

    Returns:
        The plan. Its kept units and its summary together take no more than the budget, unless what must stay does so
        alone.
    """
    keep = list(indispensable(conversation))
    units = conversation.units
    free = budget_tokens - fixed_tokens - sum(size for size, kept in zip(unit_tokens, keep, strict=True) if kept)
    if free <= 0:
        return Plan(tuple(keep), 0)
    recent = int(free * RECENT_SHARE)
    left = recent
    for position in reversed(range(len(units))):
        instructs = conversation.messages[units[position].first].role in INSTRUCTING
        if instructs and not keep[position] and unit_tokens[position] <= left:
            keep[position] = True
            left -= unit_tokens[position]
    for position in range(_border(keep, unit_tokens, left, max(budget_tokens // STEPS, 1)), len(units)):
        if not keep[position]:
            keep[position] = True
            left -= unit_tokens[position]
    room = free - (recent - left)
    return Plan(tuple(keep), 0 if all(keep) else room)


def _border(keep: Sequence[bool], unit_tokens: Sequence[int], left: int, step: int) -> int:
    """Return the first unit of the kept tail."""
    border = len(keep)
    for position in reversed(range(len(keep))):
        if not keep[position]:
            if unit_tokens[position] > left:
                break
            left -= unit_tokens[position]
        border = position
    # Round up to a step, counted from the start; a short tail is worth more than a cache hit.
    if sum(unit_tokens[border:]) < 2 * step:
        return border
    before = sum(unit_tokens[:border])
    target = -(-before // step) * step
    for position in range(border, len(keep)):
        if before >= target:
            return position
        before += unit_tokens[position]
    return border


def condensed_spans(conversation: Conversation, chosen: Plan) -> tuple[Span, ...]:
    """Return the messages that the plan does not keep, as ranges in order."""
    spans: list[Span] = []
    for unit, kept in zip(conversation.units, chosen.keep, strict=True):
        if kept:
            continue
        if spans and spans[-1].last + 1 == unit.first:
            spans[-1] = Span(spans[-1].first, unit.last)
        else:
            spans.append(Span(unit.first, unit.last))
    return tuple(spans)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Put ranges in order, and those together that touch."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda item: item.first):
        if found and found[-1].last + 1 >= span.first:
            found[-1] = Span(found[-1].first, max(found[-1].last, span.last))
        else:
            found.append(span)
    return tuple(found)


def condensed_messages(conversation: Conversation, chosen: Plan) -> list[Message]:
    """Return the messages that the plan does not keep, in order."""
    return [
        message
        for unit, kept in zip(conversation.units, chosen.keep, strict=True)
        if not kept
        for message in conversation.of(unit)
    ]


def kept_messages(conversation: Conversation, chosen: Plan) -> list[Message]:
    """Return the messages that the plan keeps, in order."""
    return [
        message
        for unit, kept in zip(conversation.units, chosen.keep, strict=True)
        if kept
        for message in conversation.of(unit)
    ]


def in_words(spans: Sequence[Span]) -> str:
    """Write ranges as "1-16, 18", many of them shortened; the numbers are indices in the request, from 0."""
    words = [str(span.first) if span.first == span.last else f"{span.first}-{span.last}" for span in spans]
    if len(words) > _SPANS_IN_WORDS:
        words[_SPANS_IN_WORDS - 1 : -1] = ["..."]
    return ", ".join(words)


def assemble(conversation: Conversation, chosen: Plan, body: str | None) -> list[Message]:
    """Build the messages that fit.

    The summary comes as a user message: what users and tools wrote must not gain a system prompt's authority. Where a
    user message follows, a short acknowledgement stands between, since many chat templates insist that user and
    assistant take turns.

    Args:
        conversation: as parsed.
        chosen: by `plan`.
        body: of the summary; None leaves the summary message out.
    """
    kept = kept_messages(conversation, chosen)
    spans = condensed_spans(conversation, chosen)
    if body is None or not spans:
        return kept
    leading = leading_instructions(conversation)
    inserted = [_inserted("user", f"{MARK}{in_words(spans)}]\n{body}".rstrip())]
    following = next((message.role for message in kept[leading:] if message.role not in INSTRUCTING), "")
    if following == "user":
        inserted.append(_inserted("assistant", ACKNOWLEDGEMENT))
    return [*kept[:leading], *inserted, *kept[leading:]]


def as_json(messages: Sequence[Message]) -> bytes:
    """Write messages as a JSON array; those of the client byte for byte."""
    return b"[" + b",".join(message.raw for message in messages) + b"]"


def _inserted(role: str, content: str) -> Message:
    raw = json.dumps({"role": role, "content": content}, ensure_ascii=False).encode()
    return Message(index=-1, role=role, raw=raw, text=content)
