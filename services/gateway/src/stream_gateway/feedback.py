"""Thumbs: what callers say about answers. Who asked what is remembered here; `batches.thumbs` keeps what they say.

Only the key that asked may judge an answer, so each gateway remembers who asked it what last: ids and tiers, never
text. A prompt is kept only when the caller sends it along with the thumb.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from stream_core.errors import NotAllowed
from stream_core.privacy import may_see, strictest

if TYPE_CHECKING:
    from stream_core.deployment import PolicyConfig
    from stream_gateway.privacy.detector import Detector

REMEMBERED: Final = 65_536
"""Answers whose owner is known, about 200 bytes each."""


class Answered(msgspec.Struct, frozen=True):
    """Who asked, and who answered."""

    key: str
    tier: str
    model: str
    privacy: str = ""
    """The request's class; empty, which may be kept nowhere: an older replica remembers it."""


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


async def demand_kept(
    place: str, policy: "PolicyConfig", detector: "Detector", prompt: str, classes: Sequence[str]
) -> None:
    """Refuse a prompt that is too confidential to be kept with a thumb.

    Args:
        place: the most confidential class that may be.
        policy: with the classes.
        detector: of that policy; what it finds in the prompt raises its class.
        prompt: as the caller sent it along.
        classes: of the request that was answered, and of the one that brings the thumb.

    Raises:
        NotAllowed: with both classes.
    """
    privacy = strictest(policy.classes, *classes)
    found = await detector.raised({"messages": [{"role": "user", "content": prompt}]}, privacy)
    if found is not None:
        privacy = found.privacy
    if not may_see(policy.classes, place, privacy):
        why = f" (raised by what it holds: {found.words})" if found is not None else ""
        said = repr(privacy) if privacy else "of a class that is not known"
        words = f"prompt: it is {said}{why}, and prompts up to {place!r} are kept with thumbs: leave it out"
        raise NotAllowed(words, param="prompt")


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
