"""One conversation on its way into one budget: counts, plan, extraction, and what a model's summary makes of it.

Deterministic: the same conversation, counter and budget give the same result. Nothing leaves here before the whole
prompt has been counted again, so nothing is over budget.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Final

import msgspec

from stream_summarizer import policy
from stream_summarizer.analysis import Analysis
from stream_summarizer.conversation import Conversation, Message
from stream_summarizer.extract import Passage, Ranking, rank
from stream_summarizer.tokens import Count, Counter

_ATTEMPTS: Final = 6
Remember = Callable[[bytes, Callable[[], str]], str]
"""Returns what is known under a key, or makes it and may keep it."""


class Fitted(msgspec.Struct, frozen=True):
    """A conversation that fits."""

    messages: list[Message]
    count: Count
    spans: tuple[policy.Span, ...]
    summarised: bool  # False: there was no room for a summary, the spans were left out


class ModelTask(msgspec.Struct, frozen=True):
    """What a model may be asked: condense this text."""

    plan: policy.Plan
    spans: tuple[policy.Span, ...]
    text: str  # the transcript of the condensed messages
    summary_tokens: int  # at most
    key: bytes  # names the content, whatever the question


class Fitting:
    """Holds one request's counts; methods may take tens of milliseconds and belong in a thread."""

    def __init__(
        self,
        conversation: Conversation,
        counter: Counter,
        budget: policy.Budget,
        analyse: Callable[[str], Analysis] = Analysis,
    ) -> None:
        self._analyse = analyse
        self.conversation = conversation
        self.budget = budget
        self._counter = counter
        self.before = counter.prompt(conversation.messages, conversation.tools)
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
            chosen = self._plan(aim, None)
            spans = policy.condensed_spans(self.conversation, chosen)
            room = chosen.summary_tokens - self._overhead(chosen)
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
            policy.condensed_spans(self.conversation, bare),
            summarised=False,
        )

    def model_task(self, summary_limit: int, least: int, source_tokens: int) -> ModelTask | None:
        """Prepare what a model is asked.

        Args:
            summary_limit: tokens of the summary, at most.
            least: a smaller summary is not worth asking for.
            source_tokens: how long a text the model can take; a longer one is shortened by extraction first.

        Returns:
            None when there is no room for a summary.
        """
        chosen = self._plan(self._aim, summary_limit)
        room = chosen.summary_tokens - self._overhead(chosen)
        size = summary_limit
        while size > room:
            size //= 2  # steps, so that the same part is asked for in the same size on the next turn
        if size < least:
            return None
        messages = policy.condensed_messages(self.conversation, chosen)
        text = "\n".join(f"{message.role} ({message.index}): {_spoken(message)}" for message in messages)
        if self._counter.text(text) > source_tokens:
            text = self._ranking(chosen).within(source_tokens, self._lines)
        key = b"\0".join([str(size).encode(), *(message.raw for message in messages)])
        return ModelTask(chosen, policy.condensed_spans(self.conversation, chosen), text, size, key)

    def with_summary(self, task: ModelTask, body: str) -> Fitted:
        """Put a model's summary in; the caller checks that it is not `over`."""
        return self._assembled(task.plan, task.spans, body)

    @property
    def _aim(self) -> int:
        return self.budget.tokens(exact=self.before.exact)

    @cached_property
    def _unit_tokens(self) -> list[int]:
        return [sum(map(self._counter.message, self.conversation.of(unit))) for unit in self.conversation.units]

    def _plan(self, budget: int, summary_limit: int | None) -> policy.Plan:
        fixed = max(self.before.tokens - sum(self._unit_tokens), 0)
        return policy.plan(self.conversation, self._unit_tokens, fixed, budget, summary_limit)

    def _overhead(self, chosen: policy.Plan) -> int:
        """Tokens of a summary message without its text, and of the acknowledgement."""
        inserted = [message for message in policy.assemble(self.conversation, chosen, "") if message.index < 0]
        return sum(map(self._counter.message, inserted))

    def _ranking(self, chosen: policy.Plan) -> Ranking:
        spans = policy.condensed_spans(self.conversation, chosen)
        if spans not in self._rankings:
            passages = [
                Passage(message.index, message.role, _spoken(message), self._counter.message(message))
                for message in policy.condensed_messages(self.conversation, chosen)
            ]
            self._rankings[spans] = rank(passages, self.question, self._analyse)
        return self._rankings[spans]

    def _extract(self, chosen: policy.Plan, room: int) -> str:
        return self._ranking(chosen).within(room, self._lines)

    def _lines(self, text: str) -> int:
        """Count a text by its lines, of which the counter knows most from before; the whole prompt is counted later."""
        return sum(self._counter.text(line) + 1 for line in text.split("\n"))

    def _key(self, chosen: policy.Plan, room: int) -> bytes:
        """Name an extraction: it depends on the question and on where the messages stand, too."""
        spans = repr(policy.condensed_spans(self.conversation, chosen))
        raws = [message.raw for message in policy.condensed_messages(self.conversation, chosen)]
        return b"\0".join([str(room).encode(), spans.encode(), self.question.encode(), *raws])

    def _assembled(self, chosen: policy.Plan, spans: tuple[policy.Span, ...], body: str) -> Fitted:
        messages = policy.assemble(self.conversation, chosen, body)
        return Fitted(messages, self._counter.prompt(messages, self.conversation.tools), spans, summarised=bool(spans))


def _spoken(message: Message) -> str:
    """Write a message as text: what was said, which tools were called, that there was an image."""
    parts = [message.text] if message.text else []
    parts.extend(f"called {call.name}({call.arguments})" for call in message.calls)
    parts.extend(f"[{medium.kind}]" for medium in message.media)
    return "\n".join(parts)
