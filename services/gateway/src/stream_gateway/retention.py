"""Which tier was to answer and which one did: what a tier keeps of the requests that were meant for it."""

from typing import Final

from stream_core.metrics import Counter

_CHOSEN: Final = Counter(
    "stream_first_choices_total", "Requests for which a tier was the first choice.", ("tier", "choice")
)
_ANSWERED: Final = Counter(
    "stream_answers_total", "Answers that began, by tier and how it was chosen.", ("tier", "choice")
)
_KEPT: Final = Counter("stream_kept_total", "Answers by the tier that was the first choice.", ("tier", "choice"))
AUTO: Final = "auto"
NAMED: Final = "named"


def chosen(tier: str, *, named: bool) -> None:
    """A tier is the first candidate."""
    _CHOSEN.add(1, tier, NAMED if named else AUTO)


def answered(tier: str, *, named: bool, first: bool) -> None:
    """A tier's answer has begun.

    Args:
        tier: that answers.
        named: by the caller.
        first: whether it was the first candidate.
    """
    choice = NAMED if named else AUTO
    _ANSWERED.add(1, tier, choice)
    if first:
        _KEPT.add(1, tier, choice)
