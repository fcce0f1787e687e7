"""What is looked for only where a sign of it is, is found exactly as if it were always looked for."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_judge import vocabulary
from stream_judge.context import Question
from stream_judge.features import Shape, extract
from stream_judge.form import written_form
from stream_judge.output_length import requested_tokens
from stream_judge.vocabulary import Phrases

ALL = {name: found for name, found in vars(vocabulary).items() if isinstance(found, Phrases)}
STEP = re.compile(
    r"^\s{0,8}(?:\d{1,2}[.)]|[-*•]|\(?[a-h]\))\s|\b(?:first|second|then|next|finally|afterwards)\b,?", re.MULTILINE
)
"""Both kinds of marks of a task in parts, in one pattern."""
marks = st.text(st.sampled_from('ab f1 23.,-*+/()^=<\n"“é'), max_size=60)
lines = st.lists(st.sampled_from(["1. a", "- b", "first, c", "  (a) then", "\n", "next", "thence", "* x finally", "z"]))


@pytest.mark.parametrize("name", sorted(ALL))
@given(data=st.data())
def test_every_match_has_a_sign(name: str, data: st.DataObject) -> None:
    """Any text that a pattern matches holds one of its signs."""
    phrases = ALL[name]
    text = data.draw(st.from_regex(phrases.pattern))
    assert phrases.count(text) == len(phrases.pattern.findall(text)) > 0
    assert phrases.found(text)


@given(text=marks)
def test_counted_apart(text: str) -> None:
    """Signs of calculation, numbers, quotation marks: counted in parts they are as many as counted at once."""
    values = extract(Question(text, len(text), inherited=False, depth=1), Shape())
    counted = (
        ("operators", vocabulary.OPERATOR),
        ("numbers", vocabulary.NUMBER),
        ("units", vocabulary.UNIT),
        ("quotations", vocabulary.QUOTATION),
    )
    for name, pattern in counted:
        assert (values[name] > 0) == (pattern.search(text) is not None)
    numbers = vocabulary.NUMBER.findall(text)
    form = written_form(text, numbers, None)
    assert form["digit_share"] * max(len(text), 1) == pytest.approx(sum(map(str.isdigit, text)))
    assert form["decimals"] == min(40, len(re.findall(r"\d+\.\d+", text)))
    if text.isascii():
        assert form == written_form(text, numbers, vocabulary.ASCII_WORD.findall(text.lower()))


@given(listed=lines)
def test_steps_counted_apart(listed: list[str]) -> None:
    """Marks and words of a task in parts never share a character, so they can be counted one after the other."""
    text = "\n".join(listed)
    apart = len(vocabulary.STEP_MARK.findall(text)) + vocabulary.STEP_WORDS.count(text)
    assert apart == len(STEP.findall(text))


@settings(max_examples=30)
@given(number=st.integers(1, 9999), unit=st.sampled_from(["words", "mots", "palabras", "bullet points", "sätze"]))
def test_a_named_length_is_found(number: int, unit: str) -> None:
    """Every unit has its sign."""
    assert requested_tokens(f"write {number} {unit} about it") is not None
