"""Thumbs: what callers say about answers, kept in a bounded JSONL file for `stream judge calibrate`.

Only the key that asked may judge an answer, so the gateway remembers who asked what last: ids and tiers, never text.
A prompt is kept only when the caller sends it along with the thumb.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from stream_core.errors import LimitExceeded

REMEMBERED: Final = 65_536
"""Answers whose owner is known, about 200 bytes each."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Who asked, and who answered."""

    key: str
    tier: str
    model: str


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

    def find(self, request_id: str, key: str) -> Answered | None:
        """Give an answer to its owner, to nobody else."""
        answered = self._answers.get(request_id)
        return answered if answered is not None and answered.key == key else None


def append(path: Path, line: dict[str, object], most_bytes: int) -> None:
    """Add a line to the file, which only its owner may read.

    Raises:
        LimitExceeded: the file is full.
        OSError: it can't be written.
    """
    data = orjson.dumps(line) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size + len(data) > most_bytes:
            raise LimitExceeded(f"the feedback file holds {size:,} bytes, at most {most_bytes:,}: move it away")
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
