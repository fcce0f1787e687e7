"""What an engine has written, as operators may see it: its last words, readable, bounded, without its secrets."""

import os
import re
from pathlib import Path
from typing import Final

MAX_TAIL: Final = 1500
"""Characters of a log that a failure quotes."""
MAX_LINE: Final = 200
"""Characters of the line that says what an engine is doing."""
_READ_BYTES: Final = 16 * 1024
_ESCAPES: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)")
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_LEAST_SECRET: Final = 8
"""Characters: a shorter value would blacken words that only look like it."""


class EngineLog:
    """One engine's log, from where it began.

    Args:
        path: of the file; an earlier engine may have written to it.
        secrets: never shown.
    """

    def __init__(self, path: Path, secrets: frozenset[str]) -> None:
        self.path = path
        self._secrets = secrets
        self._start = path.stat().st_size if path.exists() else 0

    def tail(self) -> str:
        """Read its last lines, whole ones where they fit; empty when it wrote nothing."""
        return tail(self._read(), self._secrets)

    def last_line(self) -> str:
        """Read what it says now."""
        return self.tail().rpartition("\n")[2][-MAX_LINE:]

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._start, size - _READ_BYTES))
                return file.read()
        except OSError:
            return b""


def tail(written: bytes, secrets: frozenset[str]) -> str:
    """Make the end of a log fit to be shown.

    Args:
        written: what was read of it, perhaps from the middle of a line.
        secrets: replaced by "***".

    Returns:
        At most `MAX_TAIL` characters; a progress bar that was drawn many times is there as it was drawn last.
    """
    text = _ESCAPES.sub("", written.decode("utf-8", "replace"))
    for secret in secrets:
        text = text.replace(secret, "***")
    lines = ["".join(character if character.isprintable() else " " for character in line) for line in _lines(text)]
    text = "\n".join(line.strip() for line in lines if line.strip())
    if len(text) <= MAX_TAIL:
        return text
    cut = text[-MAX_TAIL:]
    _, broken, whole = cut.partition("\n")
    return whole if broken else cut


def secrets_of(environment: dict[str, str], key: str) -> frozenset[str]:
    """Collect what an engine knows and its log must not tell: its key, and what its environment calls a secret."""
    named = {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    return frozenset(value for value in {key, *named} if len(value) >= _LEAST_SECRET)


def _lines(text: str) -> list[str]:
    """Split into lines; of what a carriage return overwrote only the last is left."""
    return [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
