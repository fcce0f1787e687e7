"""Patterns of others: only those whose worst case is bounded are taken."""

import pytest

from stream_core.bounded_patterns import compile_bounded
from stream_core.deployment import parse
from stream_core.errors import ConfigError


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b[A-Z]{2}\d{6,10}\b",
        r"(?i)matr\.?[ -]?\d{6,8}",
        r"[a-z]{2,20}\.[a-z]{2,20}@uni\.edu",
        r"(?:[ -]?\d){6}",
        r"(?<!\d)\d{8}(?!\d)",
        r"grant|loan|(?P<x>fee)",
    ],
)
def test_bounded_ones_are_taken(pattern: str) -> None:
    """What institutions write, with upper bounds."""
    assert compile_bounded(pattern).pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a+)+b", "upper bound"),
        (r"\w+@\w+", "upper bound"),
        (r"a*", "upper bound"),
        (r"a{3,}", "upper bound"),
        (r"(a{1,9}){1,9}b", "steps at each character, at most 20,000"),
        (r"a{0,99}b{0,99}c{0,99}", "may match 297 characters, at most 256"),
        (r"a{300}", "may match 300 characters, at most 256"),
        (r"(?=a{300})b", "looks 300 characters"),
        (r"(a)\1", "references"),
        (r"a?", "matches the empty text"),
        (r"(", "no regular expression"),
    ],
)
def test_others_are_refused_with_a_reason(pattern: str, words: str) -> None:
    """Catastrophic, unbounded, too wide, or wrong."""
    with pytest.raises(ValueError, match=words):
        compile_bounded(pattern)


def test_the_file_names_line_and_field() -> None:
    """An operator learns where the pattern stands and what to write instead."""
    text = "policy:\n  detector:\n    patterns:\n      - {name: n, privacy: internal, pattern: '(a+)+'}\n"
    with pytest.raises(ConfigError, match=r"stream\.yaml:4: policy\.detector\.patterns\.0\.pattern: .*upper bound"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: {detector: {find: {iban: secret}}}", r"policy\.detector: \['secret'\] is not among"),
        ("policy: {detector: {unreadable: secret}}", r"policy\.detector: \['secret'\] is not among"),
        ("policy: {detector: {find: {postcode: public}}}", "policy.detector.find.postcode"),
        (
            "tiers: [{name: a, base_url: 'http://h/v1', models: [{id: m, privacy: internal}]}]",
            "model 'm': privacy 'internal' is above 'public', which is all that its tier may see",
        ),
        (
            "tiers: [{name: a, base_url: 'http://h/v1', models: [{id: m, privacy: x}]}]",
            "model 'm': privacy 'x' is not among",
        ),
        (
            "{tiers: [{name: hpc, kind: hpc, privacy: internal}], "  # noqa: ISC004  (one text on two lines)
            "clusters: [{name: c, pools: [{model: {id: m, privacy: restricted}}]}]}",
            "model 'm': privacy 'restricted' is above 'internal'",
        ),
    ],
)
def test_classes_must_fit(text: str, words: str) -> None:
    """Classes that nobody knows, and models above their tier, are errors of the file."""
    with pytest.raises(ConfigError, match=words):
        parse(text)
