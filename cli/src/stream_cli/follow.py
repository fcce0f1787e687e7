"""The user's file: read at the start, followed while everything runs, so that a change reaches the services' copy."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from stream_core.deployment import Deployment, parse
from stream_core.errors import ConfigError

_INTERVAL_S: Final = 1.0

Parsed = tuple[Deployment, Mapping[str, Mapping[str, Any]]]


async def follow(
    path: Path,
    seen: str,
    take: Callable[[Parsed], None],
    say: Callable[[str], None],
    *,
    interval_s: float = _INTERVAL_S,
) -> None:
    """Look at a deployment file now and then, until cancelled.

    Args:
        path: of the user's file; while it is away, nothing changes.
        seen: its text, as it was read at the start.
        take: gets what a changed file says; may raise ConfigError.
        say: gets one line for each change.
        interval_s: seconds between two looks.
    """
    while True:
        await asyncio.sleep(interval_s)
        try:
            text = path.read_text(encoding="utf-8")  # noqa: ASYNC240  (small and local)
        except (OSError, UnicodeDecodeError):
            continue
        if text == seen:
            continue
        seen = text
        try:
            take(parse(text, source=str(path)))
        except ConfigError as error:
            say(f"{path} has changed and is wrong; the last good one stays in force\n{error.message}")
        else:
            say(f"{path} has changed: the gateway takes it over; other services and clusters at the next start")
