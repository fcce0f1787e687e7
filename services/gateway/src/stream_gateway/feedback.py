"""Thumbs: what callers say about answers. Who asked what is remembered here; `batches.thumbs` keeps what they say.

Only the key that asked may judge an answer, so each gateway remembers who asked it what last: ids and tiers, never
text. A prompt is kept only when the caller sends it along with the thumb.
"""

from collections import OrderedDict
from typing import Final

import msgspec

REMEMBERED: Final = 65_536
"""Answers whose owner is known, about 200 bytes each."""


class Answered(msgspec.Struct, frozen=True):
    """Who asked, and who answered."""

    key: str
    tier: str
    model: str


class Thumb(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a caller said about an answer; a line of what `stream judge calibrate` reads."""

    request_id: str
    key: str
    tier: str
    model: str
    good: bool
    at: int
    """Unix seconds."""
    prompt: str | None = None


class RecentAnswers:
    """The last answers of this gateway by request id."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._answers: OrderedDict[str, Answered] = OrderedDict()

    def note(self, request_id: str, answered: Answered) -> None:
        """Remember one; the oldest beyond the bound is forgotten."""
        self._answers[request_id] = answered
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def find(self, request_id: str) -> Answered | None:
        """Give an answer; whose it is, the caller has to look at."""
        return self._answers.get(request_id)
