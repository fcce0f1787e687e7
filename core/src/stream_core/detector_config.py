"""What a text is looked through for, as `stream.yaml` says it. Pure; part of `stream_core.deployment`.

What is found can only raise a request's class, to the one that stands beside it here.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from stream_core.bounded_patterns import compile_bounded
from stream_core.cluster_config import Section

Kind = Literal["card_number", "iban", "us_ssn", "email", "phone", "health", "secret"]
"""What is known how to find: numbers with a check digit or a fixed form, addresses, words of medicine with codes of the
ICD, and keys of programs (API keys, private keys, JWTs)."""


class PatternConfig(Section):
    """Something that only this institution knows."""

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[ -~]+$")]
    """For the reason that a client is told: "matriculation number"."""
    pattern: Annotated[str, Field(min_length=1, max_length=1000)]
    """A regular expression of Python with an upper bound for each repetition: `{1,64}`, not `*` or `+`."""
    privacy: str
    """Class of a text in which it is found."""

    @field_validator("pattern")
    @classmethod
    def _bounded(cls, pattern: str) -> str:
        compile_bounded(pattern)
        return pattern


class DetectorConfig(Section):
    """Raises the class of texts by what stands in them. It misses things: a floor for the careless, no filter."""

    find: dict[Kind, str] = Field(default_factory=dict)
    """The class for each kind that is to be found; others are not looked for."""
    patterns: Annotated[list[PatternConfig], Field(max_length=64)] = Field(default_factory=list)
    unreadable: str | None = None
    """Class of what can't be looked through: images, audio, files, texts as numbers of tokens. None: as without it."""
    deadline_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 2.0
    """A text that takes longer gets the highest of these classes."""

    @property
    def classes(self) -> set[str]:
        """All that it may raise to."""
        own = {self.unreadable} if self.unreadable is not None else set()
        return {*self.find.values(), *(pattern.privacy for pattern in self.patterns), *own}
