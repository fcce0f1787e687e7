"""Names of responses: they begin with the time, so that the oldest come first. Pure."""

import re
from typing import Final

from stream_core.errors import ModelNotFound

_ID: Final = re.compile(r"resp_[0-9a-f]{32}")
_RANDOM_DIGITS: Final = 20


class NoSuchResponse(ModelNotFound):
    """No such response, or another's: nobody is told which."""

    code = "response_not_found"


def new_response_id(now: float, request_id: str) -> str:
    """Name a response.

    Args:
        now: unix seconds.
        request_id: hex, random.
    """
    return f"resp_{round(now * 1000):012x}{request_id[:_RANDOM_DIGITS]}"


def response_id(text: str) -> str:
    """Check a response's id; what is none names no response."""
    if not _ID.fullmatch(text):
        raise NoSuchResponse(f"there is no response {text[:60]!r}", param="response_id")
    return text
