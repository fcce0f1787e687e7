"""One conversation on its way into one budget: counts, plan, extraction, and what a model's summary makes of it.

Deterministic: the same conversation, counter and budget give the same result. Nothing leaves here before the whole
prompt has been counted again, so nothing is over budget.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Final

import msgspec

from stream_summarizer import chain, giant, policy
from stream_summarizer.analysis import Analysis
from stream_summarizer.conversation import Conversation, Message
from stream_summarizer.corrections import corrections
from stream_summarizer.extract import Bearings, Passage, Ranking, rank
from stream_summarizer.pointing import pointed_at
from stream_summarizer.tokens import Count, Counter

QUOTED: Final = "In their own words:"
"""Stands between a model's summaries and what is quoted."""
_ATTEMPTS: Final = 6
_GIST_SHARE: Final = 0.5
"""Of the summary's room: what a model's summaries may take; quotations get the rest."""
_LEAST_REST: Final = 32
_MOST_SHORTENED: Final = 4
"""Messages of the last turn that are shortened, at most."""
_MARGIN_TOKENS: Final = 8
Remember = Callable[[bytes, Callable[[], str]], str]
"""Returns what is known under a key, or makes it and may keep it."""


class Fitted(msgspec.Struct, frozen=True):
    """A conversation that fits."""

    messages: list[Message]
    count: Count
    spans: tuple[policy.Span, ...]
    summarised: bool  # False: there was no room for a summary, the spans were left out


class BlockTask(msgspec.Struct, frozen=True):
    """What a model may be asked: condense this block."""

    span: policy.Span
    text: str  # the transcript of its messages
    summary_tokens: int  # at most
    key: bytes  # names the block and all before it, whatever the question


class Fitting:
    """Holds one request's counts; methods may take tens of milliseconds and belong in a thread."""

    def __init__(
        self,
        conversation: Conversation,
        counter: Counter,
        budget: policy.Budget,
        analyse: Callable[[str], Analysis] = Analysis,
        of: "Fitting | None" = None,
        cut: tuple[policy.Span, ...] = (),
    ) -> None:
        """Count.

        Args:
            conversation: as parsed.
            counter: of the model.
            budget: of the prompt.
            analyse: remembers what it has analysed.
            of: the one whose too large messages were shortened to make this one.
            cut: which ones.
        """
        self._analyse = analyse
        self.conversation = conversation
        self.budget = budget
        self._counter = counter
        self._cut = cut
        self._now = counter.prompt(conversation.messages, conversation.tools)
        self.before: Count = of.before if of else self._now
        self._rankings: dict[tuple[policy.Span, ...], Ranking] = {}

    def over(self, count: Count) -> int:
        """Return by how many tokens a prompt is over the budget; negative or 0 when it fits."""
        return count.tokens - self.budget.tokens(exact=count.exact)

    @cached_property
    def minimum(self) -> Count:
        """The prompt with everything dropped that may be: system prompt, last user message and last unit."""
        keep = policy.Plan(policy.indispensable(self.conversation), 0)
        return self._counter.prompt(policy.kept_messages(self.conversation, keep), self.conversation.tools)

    @cached_property
    def question(self) -> str:
        """The last user message's text; empty when there is none."""
        return next((m.text for m in reversed(self.conversation.messages) if m.role == "user"), "")

    def extracted(self, remember: Remember) -> Fitted:
        """Condense by extraction; `minimum` must fit.

        Args:
            remember: keeps bodies of summaries.
        """
        aim = self._aim
        for _ in range(_ATTEMPTS):
            chosen = self._plan(aim)
            spans = policy.condensed_spans(self.conversation, chosen)
            room = self._room(chosen, aim)
            body = remember(self._key(chosen, room), partial(self._extract, chosen, room))
            fitted = self._assembled(chosen, spans, body)
            over = self.over(fitted.count)
            if over <= 0:
                return fitted
            aim -= over + 1
        bare = policy.Plan(policy.indispensable(self.conversation), 0)
        return Fitted(
            policy.kept_messages(self.conversation, bare),
            self.minimum,
            policy.merged([*policy.condensed_spans(self.conversation, bare), *self._cut]),
            summarised=False,
        )

    def shortened(self) -> "Fitting | None":
        """Shorten messages that must stay until `minimum` fits, the largest first; None when that is not possible.

        The system prompt is never cut.
        """
        messages = list(self.conversation.messages)
        fitting: Fitting = self
        spans: list[policy.Span] = []
        for message in sorted(self._shortenable(), key=lambda item: -len(item.text))[:_MOST_SHORTENED]:
            over = fitting.over(fitting.minimum)
            if over <= 0:
                break
            tokens = self._counter.text(message.text) - over - _MARGIN_TOKENS
            question = "" if message.role == "user" else self.question
            short = giant.shortened(message, tokens, self._counter.text, question) if tokens > 0 else None
            if short is None:
                continue
            messages[message.index] = short
            spans.append(policy.Span(message.index, message.index))
            talk = msgspec.structs.replace(self.conversation, messages=tuple(messages))
            fitting = Fitting(talk, self._counter, self.budget, self._analyse, self, tuple(sorted(spans, key=_first)))
        return fitting if spans and fitting.over(fitting.minimum) <= 0 else None

    def _shortenable(self) -> list[Message]:
        leading = policy.leading_instructions(self.conversation)
        keep = policy.indispensable(self.conversation)
        return [
            message
            for unit, kept in zip(self.conversation.units, keep, strict=True)
            if kept and unit.first >= leading
            for message in self.conversation.of(unit)
            if message.text
        ]

    def block_tasks(self, summary_limit: int, least: int, source_tokens: int) -> tuple[BlockTask, ...]:
        """Prepare what a model is asked about the condensed part.

        Args:
            summary_limit: tokens of a block's summary, at most.
            least: a smaller summary is not worth asking for.
            source_tokens: how long a text the model can take; a longer one is shortened by extraction first.

        Returns:
            One for each block; none when there is no room for a summary.
        """
        chosen = self._plan(self._aim)
        room = self._room(chosen, self._aim)
        size = summary_limit
        while size > room:
            size //= 2  # steps, so that a block is asked for in the same size on the next turn
        if size < least:
            return ()
        return self._tasks(chosen.keep, size, source_tokens, whole=False)

    def ahead_tasks(self, summary_limit: int, source_tokens: int) -> tuple[BlockTask, ...]:
        """Prepare what will be asked when the conversation has grown: its whole blocks."""
        return self._tasks([False] * len(self.conversation.units), summary_limit, source_tokens, whole=True)

    def _tasks(self, keep: Sequence[bool], size: int, source_tokens: int, *, whole: bool) -> tuple[BlockTask, ...]:
        least = min(chain.BLOCK_TOKENS, max(source_tokens // 2, 1))
        blocks = chain.cut(self.conversation, self._unit_tokens, keep, least)
        return tuple(self._task(block, size, source_tokens) for block in blocks if block.whole or not whole)

    def _task(self, block: chain.Block, size: int, source_tokens: int) -> BlockTask:
        messages = self.conversation.messages[block.first : block.last + 1]
        text = "\n".join(f"{message.role} ({message.index}): {_spoken(message)}" for message in messages)
        if self._counter.text(text) > source_tokens:
            # Without the question: the block is to serve every later one.
            text = rank(self._passages(messages), "", self._analyse).within(source_tokens, self._lines)
        key = b"\0".join([str(size).encode(), str(block.first).encode(), block.digest])
        return BlockTask(policy.Span(block.first, block.last), text, size, key)

    def with_summaries(self, summaries: Sequence[tuple[BlockTask, str]]) -> Fitted:
        """Put a model's summaries in, and what of the source has most to do with the question.

        Args:
            summaries: of the blocks of `block_tasks`.

        Returns:
            The conversation; the caller checks that it is not `over`.
        """
        told = [
            Passage(
                task.span.first,
                "summary",
                text,
                self._counter.text(text),
                f"messages {policy.in_words([task.span])}",
            )
            for task, text in summaries
        ]
        aim = self._aim
        for _ in range(_ATTEMPTS):
            chosen = self._plan(aim)
            room = self._room(chosen, aim)
            gist = "\n".join(f"{passage.label}: {passage.text}" for passage in told)
            if self._lines(gist) > room * _GIST_SHARE:
                gist = rank(told, self.question, self._analyse).within(int(room * _GIST_SHARE), self._lines)
            left = room - self._lines(gist)
            rest = self._ranking(chosen).within(left, self._lines) if left >= _LEAST_REST else ""
            body = f"{gist}\n{QUOTED}\n{rest}" if rest else gist
            fitted = self._assembled(chosen, policy.condensed_spans(self.conversation, chosen), body)
            over = self.over(fitted.count)
            if over <= 0:
                break
            aim -= over + 1
        return fitted

    @property
    def _aim(self) -> int:
        return self.budget.tokens(exact=self._now.exact)

    @cached_property
    def _unit_tokens(self) -> list[int]:
        return [sum(map(self._counter.message, self.conversation.of(unit))) for unit in self.conversation.units]

    def _plan(self, budget: int) -> policy.Plan:
        fixed = max(self._now.tokens - sum(self._unit_tokens), 0)
        return policy.plan(self.conversation, self._unit_tokens, fixed, budget)

    def _room(self, chosen: policy.Plan, budget: int) -> int:
        """Count the tokens that a summary's text may take beside everything else."""
        if not chosen.summary_tokens:
            return 0
        rest = policy.assemble(self.conversation, chosen, "")
        return budget - self._counter.prompt(rest, self.conversation.tools).tokens

    def _ranking(self, chosen: policy.Plan) -> Ranking:
        spans = policy.condensed_spans(self.conversation, chosen)
        if spans not in self._rankings:
            passages = self._passages(policy.condensed_messages(self.conversation, chosen))
            self._rankings[spans] = rank(passages, self.question, self._analyse, self._bearings)
        return self._rankings[spans]

    @cached_property
    def _bearings(self) -> Bearings:
        messages = self.conversation.messages
        asked = max((m.index for m in messages if m.role == "user"), default=0)
        roles = [message.role for message in messages]
        texts = [self._analyse(_spoken(message)) for message in messages]
        pointed = pointed_at(self.question, roles[:asked], [text.text for text in texts[:asked]])
        return Bearings(corrections(roles, texts), pointed)

    def _passages(self, messages: Iterable[Message]) -> list[Passage]:
        return [
            Passage(message.index, message.role, _spoken(message), self._counter.message(message))
            for message in messages
        ]

    def _extract(self, chosen: policy.Plan, room: int) -> str:
        return self._ranking(chosen).within(room, self._lines)

    def _lines(self, text: str) -> int:
        """Count a text that is to stand behind a line end; the whole prompt is counted later."""
        return self._counter.text(f"\n{text}") if text else 0

    def _key(self, chosen: policy.Plan, room: int) -> bytes:
        """Name an extraction: it depends on the question, on where the messages stand and on the others, too."""
        spans = repr((policy.condensed_spans(self.conversation, chosen), sorted(self._bearings.corrected.items())))
        raws = [message.raw for message in policy.condensed_messages(self.conversation, chosen)]
        return b"\0".join([str(room).encode(), spans.encode(), self.question.encode(), *raws])

    def _assembled(self, chosen: policy.Plan, spans: tuple[policy.Span, ...], body: str) -> Fitted:
        messages = policy.assemble(self.conversation, chosen, body)
        count = self._counter.prompt(messages, self.conversation.tools)
        return Fitted(messages, count, policy.merged([*spans, *self._cut]), summarised=bool(spans))


def _first(span: policy.Span) -> int:
    return span.first


def _spoken(message: Message) -> str:
    """Write a message as text: what was said, which tools were called, that there was an image."""
    parts = [message.text] if message.text else []
    parts.extend(f"called {call.name}({call.arguments})" for call in message.calls)
    parts.extend(f"[{medium.kind}]" for medium in message.media)
    return "\n".join(parts)
