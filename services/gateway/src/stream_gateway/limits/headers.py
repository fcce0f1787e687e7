"""What is left of the limits of a minute, as OpenAI's and Anthropic's headers say it. Pure."""

import datetime
from typing import Final

from stream_gateway.limits.account import Level, Levels

Pairs = list[tuple[bytes, bytes]]
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def openai_headers(levels: Levels) -> Pairs:
    """Write `x-ratelimit-*`; of a limit that there is not nothing is said."""
    pairs: Pairs = []
    for name, level in _both(levels):
        pairs += [
            (f"x-ratelimit-limit-{name}".encode(), str(level.limit).encode()),
            (f"x-ratelimit-remaining-{name}".encode(), str(level.remaining).encode()),
            (f"x-ratelimit-reset-{name}".encode(), duration(level.reset_s).encode()),
        ]
    return pairs


def anthropic_headers(levels: Levels, now: float) -> Pairs:
    """Write `anthropic-ratelimit-*`.

    Args:
        levels: what is left.
        now: unix seconds.
    """
    pairs: Pairs = []
    for name, level in _both(levels):
        reset = datetime.datetime.fromtimestamp(now + level.reset_s, datetime.UTC)
        pairs += [
            (f"anthropic-ratelimit-{name}-limit".encode(), str(level.limit).encode()),
            (f"anthropic-ratelimit-{name}-remaining".encode(), str(level.remaining).encode()),
            (f"anthropic-ratelimit-{name}-reset".encode(), reset.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
        ]
    return pairs


def duration(seconds: float) -> str:
    """Write a duration as OpenAI does, in Go's form: "0s", "120ms", "8.64s", "6m0s"."""
    ms = max(0, round(seconds * 1000))
    if 0 < ms < 1000:  # noqa: PLR2004  (a second)
        return f"{ms}ms"
    hours, rest = divmod(ms / 1000, _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    text = f"{left:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{text}"
    return f"{minutes:.0f}m{text}" if minutes else text


def _both(levels: Levels) -> list[tuple[str, Level]]:
    found = (("requests", levels.requests), ("tokens", levels.tokens))
    return [(name, level) for name, level in found if level is not None]
