"""How long the answer will probably be, in tokens. Pure.

The outcome data hold no answer lengths: this is a small table of habits of chat models, not a measurement. The caller
uses it to reserve room in a context window and to estimate a cost before the answer is there.
"""

import re
from collections.abc import Mapping

from stream_judge.vocabulary import Phrases

_REQUEST = re.compile(
    r"\b(?:in|about|around|under|within|write|give|list|name|exactly|most|least|to|of|over|approximately|roughly|me"
    r"|max|maximum|mit|etwa|rund|en|de|con|a)\s{1,2}(\d{1,5})(?:\s?-\s?\d{1,5})?[\s-]{1,2}"
    r"(words?|tokens?|sentences?|paragraphs?|pages?|bullet(?: point)?s?|items?|examples?|lines?|steps?"
    r"|wörter|sätze|mots|phrases|palabras|parole)\b"
)
_UNITS = (
    "word", "token", "sentence", "paragraph", "page", "bullet", "item", "example", "line", "step", "wörter", "sätze",
    "mots", "phrase", "palabras", "parole",
)  # fmt: skip
"""Without one of these no length is named."""
_TOKENS_EACH: Mapping[str, float] = {
    "word": 1.35, "wörter": 1.6, "mot": 1.5, "palabra": 1.5, "parole": 1.5, "token": 1.0, "sentence": 27.0,
    "sätze": 30.0, "phrase": 27.0, "paragraph": 130.0, "page": 650.0, "bullet": 32.0, "bullet point": 32.0,
    "item": 32.0, "example": 60.0, "line": 14.0, "step": 45.0,
}  # fmt: skip
_ESSAYS = (
    "essay", "report", "article", "chapter", "short story", "thesis", "white ?paper", "documentation", "tutorial",
    "aufsatz",
)  # fmt: skip
_ESSAY = Phrases(re.compile(rf"\b(?:{'|'.join(_ESSAYS)})\b"), (*_ESSAYS, "paper"))
_MOST = 16_384

_USUAL = 220.0
_TABLE: tuple[tuple[str, float], ...] = (
    ("courtesy", 30.0),
    ("everyday_task", 110.0),
    ("proof", 800.0),
    ("derivation", 750.0),
    ("design", 800.0),
    ("reasoning", 500.0),
    ("several_parts", 450.0),
    ("code", 400.0),
    ("explain_words", 380.0),
    ("calculation", 320.0),
)
"""The first feature of the table that is present decides."""
_ESSAY_TOKENS = 1100.0
_BRIEF_TOKENS = 90.0


def requested_tokens(text: str) -> int | None:
    """Read a length that the text asks for ("in 500 words", "3 paragraphs").

    Args:
        text: lower case, bounded.

    Returns:
        Tokens, at most 16,384; None when no length is named.
    """
    named = _REQUEST.findall(text) if any(map(text.__contains__, _UNITS)) else ()
    found = [int(number) * _each(unit) for number, unit in named]
    if found:
        return min(_MOST, round(max(found)))
    return round(_ESSAY_TOKENS) if _ESSAY.found(text) else None


def _each(unit: str) -> float:
    return _TOKENS_EACH.get(unit) or _TOKENS_EACH[unit.removesuffix("s")]


def expected_tokens(values: Mapping[str, float], text: str, max_output_tokens: int) -> int:
    """Estimate the answer's length.

    Args:
        values: features of the question.
        text: of the question, bounded.
        max_output_tokens: the caller's limit; 0 for none.

    Returns:
        Tokens, at least 1 and at most the caller's limit.
    """
    wanted = requested_tokens(text.lower())
    if wanted is None:
        usual = next((tokens for name, tokens in _TABLE if values[name] > 0), _USUAL)
        shrink = values["brief"] if usual == _USUAL else 0.0
        wanted = round(usual * (1 - shrink) + _BRIEF_TOKENS * shrink)
    wanted = max(1, wanted)
    return min(wanted, max_output_tokens) if max_output_tokens > 0 else wanted
