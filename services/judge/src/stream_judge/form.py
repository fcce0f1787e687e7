"""How a text is written, in numbers: shares of digits, names and rare words, its marks, its lettered options. Pure.

`features` counts what the words mean; this module only looks at their shape. Everything reads the bounded excerpt.
"""

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from stream_judge import vocabulary as v

_WORD = re.compile(r"[A-Za-z]+")
_CAPITAL = re.compile(r"[A-Z]")
_DIGITS = re.compile(r"\d+")
_DECIMAL = re.compile(r"\d+\.\d+")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")
_FIGURE = re.compile(r"[\s$\-\d.,%/\u00d7x*^e+()]+[A-Za-z/°^0-9]*")
_LONG_WORD = 9
_MOST = 40
"""Marks beyond this many say nothing more."""


def written_form(stem: str, numbers: Sequence[str], plain_words: Sequence[str] | None) -> Mapping[str, float]:
    """Measure a text without its options.

    Args:
        stem: bounded, in its own letter case.
        numbers: that stand in it, with their points and commas.
        plain_words: its words in lower case, where it is ASCII; None: to be found here.

    Returns:
        Finite values by feature name; shares are of characters or words, counts end at 40.
    """
    words = [word.lower() for word in _WORD.findall(stem)] if plain_words is None else plain_words
    count, size = len(words) or 1, len(stem) or 1
    digits, decimals = _digits(numbers)
    end = stem.rstrip()[-1:]
    return {
        "digit_share": sum(map(len, digits)) / size,
        "capital_share": len(_CAPITAL.findall(stem)) / size,
        "long_word_share": sum(1 for word in words if len(word) >= _LONG_WORD) / count,
        "distinct_share": len(set(words)) / count,
        "name_share": len(_NAME.findall(stem)) / count,
        "longest_number": min(_MOST, max(map(len, digits), default=0)),
        "decimals": min(_MOST, decimals),
        "question_marks": min(_MOST, stem.count("?")),
        "commas": min(_MOST, stem.count(",")),
        "blanks": min(_MOST, stem.count("_")),
        "line_breaks": min(_MOST, stem.count("\n")),
        "brackets": min(_MOST, stem.count("(")),
        "ends_in_question": float(end == "?"),
        "ends_open": float(end not in {"?", "."}),
    }


def _digits(numbers: Sequence[str]) -> tuple[Sequence[str], int]:
    """Return the runs of digits, and how many of the numbers are decimal fractions."""
    said = " ".join(numbers)
    if "." not in said and "," not in said:
        return numbers, 0
    return _DIGITS.findall(said), len(_DECIMAL.findall(said))


def options_form(text: str) -> Mapping[str, float]:
    """Measure lettered options; all zero in a text without at least three of them."""
    options = [line.strip()[2:].strip() for line in v.OPTION.findall(text)]
    if len(options) < v.FEWEST_OPTIONS:
        return NO_OPTIONS
    return dict(zip(OPTION_FEATURES, _options(options), strict=True))


OPTION_FEATURES = (
    "option_length", "option_longest", "option_shortest", "option_spread", "option_numbers", "option_figures",
    "option_variety",
)  # fmt: skip
NO_OPTIONS: Mapping[str, float] = dict.fromkeys(OPTION_FEATURES, 0.0)


def _options(options: Sequence[str]) -> tuple[float, ...]:
    sizes = [float(len(option)) for option in options]
    words = [set(re.findall(r"\w+", option.lower())) for option in options]
    return (
        fmean(sizes),
        max(sizes),
        min(sizes) + 1.0,
        pstdev(sizes),
        fmean(float(_DIGITS.search(option) is not None) for option in options),
        fmean(float(_FIGURE.fullmatch(option) is not None) for option in options),
        len(set().union(*words)) / max(1, sum(map(len, words))),
    )
