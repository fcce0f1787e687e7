"""Extractive condensing: what matters, in its own words and order, within a token budget. Pure.

A message is worth most when enough of it stands to be understood, so messages compete as wholes: by what they have to
do with the question (`relevance`), who said them and what they state, for the tokens of their shortest faithful form
(`analysis.core`). The best are then written out in full while there is room. Sentences of other messages fill what is
left; and values that stand nowhere yet (names, times, amounts) make a line of facts, which in a very small budget is
all there is. Equal scores go to what was said later, since a correction comes after what it corrects; what is known to
be taken back (`corrections`) stands only beside the message that does so, with a note, and its value is no fact.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from stream_summarizer.analysis import Analysis
from stream_summarizer.corrections import Correction
from stream_summarizer.relevance import Relevance, relevance

GAP: Final = " ... "
FACTS: Final = "facts: "

_USER: Final = 0.25
_PRIOR: Final = {"system": 0.4, "developer": 0.4, "user": _USER, "tool": 0.05, "function": 0.05}
_OTHER: Final = 0.02
_ENOUGH_WORDS: Final = 5
"""Content words; a shorter message is worth less of what its role is."""
_FACTS_WORTH: Final = 0.08
_ENOUGH_FACTS: Final = 3
_STATED_WORTH: Final = 0.1
_LATER_WORTH: Final = 0.03
_COST_EXPONENT: Final = 0.6
_BLIND_COST_EXPONENT: Final = 0.9
"""Where nothing is known of what will be asked, many short messages serve better than few long ones."""

_KIND_WORTH: Final = 1.0
_CONTEXT_WORTH: Final = 1.0
_BEFORE: Final = 0.5
_USER_FACT: Final = 0.1
_REPEATED: Final = 0.2
_LATE_FACT: Final = 0.2
_FACT_COST_EXPONENT: Final = 0.3
_FACTS_LEAST: Final = 64
_FACTS_SHARE: Final = 0.03
_SEARCHED_CHARACTERS: Final = 8_000
"""Of messages, the best first, in which values are looked for."""
_FACTS_FRAME: Final = 4
"""Tokens of the line apart from its values."""

_POINTED_WORTH: Final = 3.0
"""Of a message that the question points at: more than of any that shares its words, neighbours included."""
_MARK_TOKENS: Final = 9
_LABEL_TOKENS: Final = 7
_FILLING_SENTENCES: Final = 300
"""Of the best messages that did not fit, about so many sentences compete for what is left."""
_LEAST_REST: Final = 12
"""Tokens; no sentence is looked for to fill less."""
_ATTEMPTS: Final = 4
_FULL: Final = 0.88
"""A selection that uses this share of its budget is good enough."""
_SHRINK: Final = 0.98


class Passage(msgspec.Struct, frozen=True):
    """One message's text, as the extraction sees it."""

    index: int  # of the message in the request
    role: str
    text: str
    tokens: int  # of the text, roughly
    label: str = ""  # instead of role and index


class Bearings(NamedTuple):
    """What is known of messages by their index in the request."""

    corrected: Mapping[int, Correction]
    """Those that later ones take back."""
    pointed: frozenset[int]
    """Those that the question points at by their place."""


_NONE: Final = Bearings({}, frozenset())


class _Value(NamedTuple):
    text: str
    key: str
    worth: float
    tokens: float


class Ranking:
    """A conversation's part against one question; made once, cut to any budget."""

    def __init__(
        self, passages: Sequence[Passage], texts: Sequence[Analysis], found: Relevance, bearings: Bearings = _NONE
    ) -> None:
        self._passages = passages
        self._texts = texts
        self._found = found
        places = {passage.index: at for at, passage in enumerate(passages)}
        self._corrected = {places[old]: new for old, new in bearings.corrected.items() if old in places}
        self._corrector = {at: places[new.by] for at, new in self._corrected.items() if new.by in places}
        """Where the message that takes another one back is to be condensed, too; else it stays word for word."""
        self._pointed = frozenset(places[index] for index in bearings.pointed if index in places)
        characters = sum(len(passage.text) for passage in passages)
        self._per_character = sum(passage.tokens for passage in passages) / max(characters, 1)
        self._rate = [passage.tokens / max(len(passage.text), 1) for passage in passages]

    def select(self, tokens: float) -> str:
        """Return what matters most, in order, a line a message: "user (3): ...".

        Args:
            tokens: budget, by the passages' own rough counts.
        """
        return self._select(tokens)[0]

    def _select(self, tokens: float) -> tuple[str, bool]:
        """Select, and tell whether nothing was left out."""
        kept_for_facts = min(tokens, max(_FACTS_LEAST, _FACTS_SHARE * tokens)) if math.isfinite(tokens) else 0
        left = tokens - kept_for_facts
        chosen: dict[int, Sequence[int]] = {}
        taken: set[str] = set()
        for at in self._order:
            cost = self._cost[at]
            if at in self._corrector and self._corrector[at] not in chosen:
                continue
            if cost <= left and self._texts[at].text not in taken:
                taken.add(self._texts[at].text)
                chosen[at] = self._texts[at].core
                left -= cost
        whole = {at for at in self._order if at not in chosen and self._texts[at].text in taken}
        for at in self._order:
            more = self._whole_cost[at] - self._cost[at]
            if at in chosen and more <= left:
                chosen[at] = range(len(self._texts[at].sentences))
                whole.add(at)
                left -= more
        if left >= _LEAST_REST:
            left = self._fill(chosen, left)
        lines = self._write(chosen)
        if len(whole) == len(self._order):
            return "\n".join(lines), True
        facts = self._facts(lines, left + kept_for_facts)
        return "\n".join([facts, *lines] if facts else lines), False

    def within(self, tokens: int, count: Callable[[str], int]) -> str:
        """Return a selection that `count` finds within the budget, and close to it where there is enough to say.

        Args:
            tokens: budget, by `count`.
            count: tokens of a text.
        """
        best = ""
        allowance = float(tokens)
        for _ in range(_ATTEMPTS):
            text, everything = self._select(allowance)
            if not text:
                break
            size = max(count(text), 1)
            if size <= tokens:
                best = max(best, text, key=len)
                if size >= _FULL * tokens or everything:
                    break
            allowance *= tokens / size * (1.0 if size <= tokens else _SHRINK)
        return best

    @cached_property
    def _cost(self) -> list[float]:
        return self._costs([text.core_length for text in self._texts])

    @cached_property
    def _whole_cost(self) -> list[float]:
        return self._costs([len(text.text) for text in self._texts])

    def _costs(self, lengths: Sequence[int]) -> list[float]:
        frames = [_LABEL_TOKENS + _MARK_TOKENS * (at in self._corrected) for at in range(len(lengths))]
        return [length * rate + frame for length, rate, frame in zip(lengths, self._rate, frames, strict=True)]

    @cached_property
    def _order(self) -> list[int]:
        """Messages with something to say, the best per token first."""
        worth = [
            found
            + _PRIOR.get(passage.role, _OTHER) * min(len(text.content) / _ENOUGH_WORDS, 1.0)
            + _FACTS_WORTH * min(text.specific, _ENOUGH_FACTS) / _ENOUGH_FACTS
            + _STATED_WORTH * text.states
            + _LATER_WORTH * at / len(self._texts)
            + _POINTED_WORTH * (at in self._pointed)
            for at, (found, passage, text) in enumerate(
                zip(self._found.messages, self._passages, self._texts, strict=True)
            )
        ]
        exponent = _COST_EXPONENT if any(self._found.messages) else _BLIND_COST_EXPONENT
        ranked = [value * cost**-exponent for value, cost in zip(worth, self._cost, strict=True)]
        for old, new in sorted(self._corrector.items()):
            ranked[new] = max(ranked[new], ranked[old])  # of equals the later one is first
        speaking = [at for at, text in enumerate(self._texts) if text.sentences]
        return sorted(speaking, key=lambda at: (-ranked[at], -at))

    def _fill(self, chosen: dict[int, Sequence[int]], left: float) -> float:
        """Add sentences of messages that did not fit; return the tokens that are left."""
        ranked: list[tuple[float, int, int, float]] = []
        for at in self._order:
            if at in chosen:
                continue
            if len(ranked) >= _FILLING_SENTENCES:
                break
            text = self._texts[at]
            prior = _PRIOR.get(self._passages[at].role, _OTHER)
            stale = self._stale_now(at, chosen)
            for position, sentence in enumerate(text.sentences):
                if stale and any(fact.key in stale for fact in text.facts[position]):
                    continue
                cost = (len(sentence) + len(GAP)) * self._rate[at] + 1
                worth = self._found.sentences[at][position] + prior + _FACTS_WORTH * text.marked[position]
                ranked.append((-worth * cost**-_COST_EXPONENT, -at, position, cost))
        ranked.sort()
        some: dict[int, list[int]] = {}
        seen = {self._texts[at].sentences[position] for at, positions in chosen.items() for position in positions}
        for _, minus, position, cost in ranked:
            at = -minus
            whole = cost + (0 if at in some else _LABEL_TOKENS)
            sentence = self._texts[at].sentences[position]
            if whole <= left and sentence not in seen:
                seen.add(sentence)
                some.setdefault(at, []).append(position)
                left -= whole
        chosen.update({at: sorted(positions) for at, positions in some.items()})
        return left

    def _stale_now(self, at: int, chosen: Mapping[int, Sequence[int]]) -> frozenset[str]:
        """Values of a message that may not stand, since what takes them back does not."""
        if at not in self._corrector or self._corrector[at] in chosen:
            return frozenset()
        return self._corrected[at].stale

    def _facts(self, lines: Sequence[str], tokens: float) -> str:
        """Write the values that stand in no line yet, the likeliest first, in one line."""
        said = "\n".join(lines).casefold()
        left = tokens - _FACTS_FRAME
        listed: list[str] = []
        there = ""
        for value in self._values:
            if left < 2:  # noqa: PLR2004  (no value is shorter)
                break
            if value.tokens <= left and value.key not in said and value.key not in there:
                listed.append(value.text)
                there += f"\n{value.key}"
                left -= value.tokens
        return FACTS + "; ".join(listed) if listed else ""

    @cached_property
    def _searched(self) -> frozenset[int]:
        """The messages whose values are worth listing: the best ones, up to a length that can be searched quickly."""
        found: set[int] = set()
        left = _SEARCHED_CHARACTERS
        for at in self._order:
            left -= len(self._texts[at].text)
            if left < 0 and found:
                break
            found.add(at)
        return frozenset(found)

    @cached_property
    def _values(self) -> list[_Value]:
        worth: dict[str, float] = {}
        times: dict[str, int] = {}
        last: dict[str, int] = {}
        shown: dict[str, str] = {}
        before = 0.0
        searched = self._searched
        for at, text in enumerate(self._texts):
            if at not in searched:
                before /= 2
                continue
            user = _USER_FACT * (self._passages[at].role == "user")
            scores = self._found.sentences[at]
            stale = self._corrected[at].stale if at in self._corrected else frozenset[str]()
            for facts, score in zip(text.facts, scores, strict=True):
                for fact in facts:
                    key = fact.key
                    if key in stale:
                        continue
                    asked = _KIND_WORTH * (fact.kind in self._found.kinds)
                    value = asked + _CONTEXT_WORTH * (score + _BEFORE * before) + fact.prior + user
                    worth[key] = max(worth.get(key, 0.0), value)
                    times[key] = times.get(key, 0) + 1
                    last[key] = at
                    shown.setdefault(key, fact.text)
            before = max(max(scores, default=0.0), before / 2)
        count = len(self._texts)
        values = [
            self._value(shown[key], key, value + _REPEATED * math.log(times[key]) + _LATE_FACT * last[key] / count)
            for key, value in worth.items()
        ]
        return sorted(values, key=lambda value: (-value.worth, value.text))

    def _value(self, text: str, key: str, worth: float) -> _Value:
        tokens = len(text) * self._per_character + 2
        return _Value(text, key, worth * tokens**-_FACT_COST_EXPONENT, tokens)

    def _write(self, chosen: Mapping[int, Sequence[int]]) -> list[str]:
        lines: list[str] = []
        for at in sorted(chosen):
            passage, text = self._passages[at], self._texts[at]
            whole = len(chosen[at]) == len(text.sentences)
            said = text.text if whole else _joined(text.sentences, chosen[at])
            mark = f" [corrected in {self._corrected[at].by}]" if at in self._corrected else ""
            lines.append(f"{passage.label or f'{passage.role} ({passage.index})'}: {said}{mark}")
        return lines


def _joined(sentences: Sequence[str], chosen: Iterable[int]) -> str:
    """Join sentences, and show where some are left out between them."""
    parts: list[str] = []
    previous = -1
    for position in chosen:
        if parts:
            parts.append(" " if position == previous + 1 else GAP)
        parts.append(sentences[position])
        previous = position
    return "".join(parts)


def rank(
    passages: Sequence[Passage],
    question: str,
    analyse: Callable[[str], Analysis] = Analysis,
    bearings: Bearings = _NONE,
) -> Ranking:
    """Score a part of a conversation.

    Args:
        passages: what is to be condensed, in order.
        question: the last question; empty when it is not known.
        analyse: remembers what it has analysed.
        bearings: of the whole conversation.
    """
    texts = [analyse(passage.text) for passage in passages]
    return Ranking(passages, texts, relevance(texts, question), bearings)
