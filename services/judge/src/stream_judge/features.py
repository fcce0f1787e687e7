"""From a question to named numbers. Pure; reads a bounded excerpt, and no text makes it raise.

Only what the text looks like counts: its length, its marks, the fields that its words belong to. A sentence that tells
the judge what to answer is a sentence like any other. Exam formatting is taken off before anything is counted, since
people don't write that way: lettered options leave nothing behind but their number.

`FEATURES` is the table: each feature's name, whether its weight is fitted to outcomes or assumed (see README.md), and
what it means in words when it is present, or large and small.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import log1p

from stream_judge import vocabulary as v
from stream_judge.context import Question, is_courtesy
from stream_judge.form import NO_OPTIONS, options_form, written_form
from stream_judge.output_length import requested_tokens

FEATURES_VERSION = 3
"""Counts up when the same text gets other features: weights fitted to another version are refused."""


class Kind(Enum):
    """Where a feature's weight comes from, and what its zero is."""

    MEASURE = "measure"
    """Fitted; every text has it; it speaks by its distance from the average question."""
    MARK = "mark"
    """Fitted; most texts have none; zero says nothing."""
    ASSUMED = "assumed"
    """Not fitted, since the outcomes hold no such requests; zero says nothing."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One row of the table."""

    name: str
    kind: Kind
    present: str
    """In words, when the value is above zero (a measure: above the average)."""
    small: str = ""
    """In words, when a measure is below the average."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the request says beside its text."""

    modalities: frozenset[str] = frozenset()
    """Beyond text: "image", "audio"."""
    tool_count: int = 0
    structured_output: bool = False
    max_output_tokens: int = 0
    """0: not limited by the caller."""


FEATURES: tuple[Feature, ...] = (
    Feature("length", Kind.MEASURE, "a long question", "a short question"),
    Feature("sentence_length", Kind.MEASURE, "long sentences", "short sentences"),
    Feature("word_length", Kind.MEASURE, "long words", "short, everyday words"),
    Feature("numbers", Kind.MEASURE, "many numbers", "few numbers"),
    Feature("code", Kind.MARK, "program code"),
    Feature("latex", Kind.MARK, "formulas in LaTeX"),
    Feature("operators", Kind.MARK, "mathematical signs"),
    Feature("units", Kind.MARK, "quantities with units"),
    Feature("options", Kind.MARK, "lettered options"),
    Feature("quotations", Kind.MARK, "quoted text"),
    Feature("explain_words", Kind.MARK, "asks why or how"),
    Feature("fact_words", Kind.MARK, "asks what, who, when or where"),
    Feature("negation", Kind.MARK, "negations and exceptions"),
    Feature("inference", Kind.MARK, "premises to reason from"),
    Feature("calculation", Kind.MARK, "asks for a calculation"),
    Feature("everyday_numbers", Kind.MARK, "everyday quantities"),
    Feature("mathematics_words", Kind.MARK, "words of mathematics"),
    Feature("law_words", Kind.MARK, "words of law"),
    Feature("science_words", Kind.MARK, "words of physics, chemistry or engineering"),
    Feature("life_words", Kind.MARK, "words of biology or medicine"),
    Feature("society_words", Kind.MARK, "words of society and history"),
    Feature("philosophy_words", Kind.MARK, "words of philosophy and logic"),
    Feature("computing_words", Kind.MARK, "words of computing"),
    Feature("digit_share", Kind.MEASURE, "much of it is figures", "few figures"),
    Feature("capital_share", Kind.MEASURE, "many capitals", "few capitals"),
    Feature("long_word_share", Kind.MEASURE, "many long words", "few long words"),
    Feature("distinct_share", Kind.MEASURE, "hardly a word twice", "words that come back"),
    Feature("name_share", Kind.MEASURE, "many names", "few names"),
    Feature("longest_number", Kind.MARK, "long numbers"),
    Feature("decimals", Kind.MARK, "decimal fractions"),
    Feature("question_marks", Kind.MARK, "question marks"),
    Feature("commas", Kind.MARK, "many clauses"),
    Feature("blanks", Kind.MARK, "blanks to fill"),
    Feature("line_breaks", Kind.MARK, "several lines"),
    Feature("brackets", Kind.MARK, "brackets"),
    Feature("ends_in_question", Kind.MARK, "ends with a question"),
    Feature("ends_open", Kind.MARK, "ends without a full stop or question mark"),
    Feature("option_length", Kind.MARK, "the length of its options"),
    Feature("option_longest", Kind.MARK, "its longest option"),
    Feature("option_shortest", Kind.MARK, "its shortest option"),
    Feature("option_spread", Kind.MARK, "options of different length"),
    Feature("option_numbers", Kind.MARK, "options with numbers"),
    Feature("option_figures", Kind.MARK, "options that are figures"),
    Feature("option_variety", Kind.MARK, "options of different words"),
    Feature("proof", Kind.ASSUMED, "asks for a proof"),
    Feature("derivation", Kind.ASSUMED, "asks for a derivation"),
    Feature("reasoning", Kind.ASSUMED, "asks for reasoning step by step"),
    Feature("several_parts", Kind.ASSUMED, "a task in several parts"),
    Feature("design", Kind.ASSUMED, "asks to design or build"),
    Feature("courtesy", Kind.ASSUMED, "a greeting or thanks"),
    Feature("everyday_task", Kind.ASSUMED, "a small everyday task"),
    Feature("brief", Kind.ASSUMED, "very few words"),
    Feature("conversational", Kind.ASSUMED, "conversation, not an exam"),
    Feature("script", Kind.ASSUMED, "a language other than English"),
    Feature("mixed_scripts", Kind.ASSUMED, "several scripts in one text"),
    Feature("tools", Kind.ASSUMED, "tools to choose from"),
    Feature("structured_output", Kind.ASSUMED, "an answer in a given structure"),
    Feature("modalities", Kind.ASSUMED, "images or audio to understand"),
    Feature("long_answer", Kind.ASSUMED, "asks for a long answer"),
    Feature("small_limit", Kind.ASSUMED, "the answer may be only a few tokens long"),
    Feature("depth", Kind.ASSUMED, "deep in a conversation"),
)

_FROM_WORDS = sorted(set(v.WORD_FEATURES.values()))
_BRIEF_WORDS = 14.0
_CHARS_PER_WORD = 12.0
_SMALL_LIMIT = 64
_LONG_ANSWER = 800
_FULL = 20
"""Counts beyond this one say nothing more: log(1 + 20) is above 3."""
_SATURATED = tuple(min(3.0, log1p(count)) for count in range(_FULL + 1))


def extract(question: Question, shape: Shape) -> Mapping[str, float]:
    """Turn a question into features.

    Args:
        question: its text is bounded; `select` made it.
        shape: what the request says beside the text.

    Returns:
        Each name of `FEATURES` with a finite value; measures are logarithms or means, everything else is 0 when
        absent and grows with diminishing returns to about 3.
    """
    stem, options = without_exam_format(question.text)
    length = max(0, question.length - (len(question.text) - len(stem)))
    text = stem.lower()
    plain = text.isascii()
    words = (v.ASCII_WORD if plain else v.WORD).findall(text)
    found = Counter(map(v.WORD_FEATURES.get, words))
    scripts = {name: len(pattern.findall(text)) for name, pattern in v.SCRIPTS} if not plain else {}
    unspaced = sum(count for name, count in scripts.items() if name in v.UNSPACED)
    word_count = len(words) + unspaced / 2
    sentences = max(1, len(v.SENTENCE_END.findall(text)))
    letters = sum(map(len, words))
    code, latex = v.CODE_WORDS.count(text) + sum(map(text.count, v.CODE_SIGNS)), v.LATEX.count(text)
    numbers = v.NUMBER.findall(text)
    values = {name: _saturated(found[name]) for name in _FROM_WORDS}
    values |= {
        "length": log1p(length),
        "sentence_length": log1p(word_count / sentences),
        "word_length": letters / len(words) if words else 0.0,
        "numbers": _saturated(len(numbers)),
        "code": _saturated(code),
        "latex": _saturated(latex),
        "operators": _saturated(_operators(text, some=bool(numbers))),
        "units": _saturated(_count(v.UNIT, text)) if numbers else 0.0,
        "options": _saturated(options),
        "quotations": _saturated(text.count('"') if plain else _count(v.QUOTATION, text)),
    }
    values |= written_form(stem, numbers, words if plain and stem.isascii() else None)
    values |= options_form(question.text) if options else NO_OPTIONS
    values |= _demands(text, found)
    demanding = values["proof"] + values["derivation"] + values["reasoning"] > 0
    said = max(word_count, length / _CHARS_PER_WORD)  # a megabyte without a space is not brief
    brief = 0.0 if demanding or not word_count else max(0.0, 1.0 - said / _BRIEF_WORDS)
    examined = options + latex + code > 0
    values |= {
        "courtesy": float(is_courtesy(text)),
        "everyday_task": float(v.EVERYDAY.match(text) is not None),
        "brief": brief,
        "conversational": float(not examined and v.CONVERSATION.search(text) is not None),
        "script": min(1.0, sum(scripts.values()) / (letters or 1) * 3),
        "mixed_scripts": float(sum(1 for count in scripts.values() if count > 5) > 1),  # noqa: PLR2004  (one loan word)
    }
    return values | _outside(question, shape, text)


def without_exam_format(text: str) -> tuple[str, int]:
    """Take lettered options and "Answer:" off a text.

    Returns:
        What is left, and the number of options; the text as it was when there are fewer than three.
    """
    options = _count(v.OPTION, text)
    if options < v.FEWEST_OPTIONS:
        return text, 0
    stem = v.ANSWER_FORMAT.sub("", v.OPTION.sub("", text)).strip()
    return (stem, options) if stem else (text, options)


def _demands(text: str, found: Counter[str | None]) -> dict[str, float]:
    parts = _count(v.STEP_MARK, text) + v.STEP_WORDS.count(text)
    return {
        "proof": float(found["proof"] > 0 or v.PROOF.found(text)),
        "derivation": float(found["derivation"] > 0 or v.DERIVATION.found(text)),
        "reasoning": float(v.REASONING.found(text)),
        "several_parts": max(0.0, min(1.0, (parts - 1) / 4)),
        "design": min(1.0, (found["design"] + v.RESEARCH.count(text)) / 3),
    }


def _outside(question: Question, shape: Shape, text: str) -> dict[str, float]:
    wanted = requested_tokens(text) or 0
    return {
        "tools": min(2.0, log1p(max(0, shape.tool_count)) / 2),
        "structured_output": float(shape.structured_output),
        "modalities": float(bool(shape.modalities - {"text"})),
        "long_answer": float(wanted >= _LONG_ANSWER),
        "small_limit": float(0 < shape.max_output_tokens <= _SMALL_LIMIT),
        "depth": min(1.0, log1p(max(0, question.depth - 1)) / 3),
    }


def _operators(text: str, *, some: bool) -> int:
    """Count signs of calculation; `some`: there are numbers."""
    if "^" in text or "(" in text:
        return _count(v.OPERATOR, text)
    return _count(v.SIGN, text) + (_count(v.OPERATION, text) if some else 0)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))


def _saturated(count: int) -> float:
    return _SATURATED[min(_FULL, count)]
