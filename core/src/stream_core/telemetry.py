"""Logs: one JSON object a line on stderr, with the request's id where there is one; never prompts, never answers.

Fields come from `extra={"request_id": ..., ...}`. What is logged per kind of fault is limited by `Once`, so that a
flood of bad frames is a counter and one line, not a full disk.
"""

import json
import logging
import sys
import time
from collections import Counter
from typing import Final

_DETAIL_CHARACTERS: Final = 300
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def configure_logs(service: str, level: str = "INFO") -> None:
    """Send this program's logs to stderr as JSON lines.

    Args:
        service: its name, on every line.
        level: of the root logger.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Once:
    """Counts faults by kind and logs the first of each kind, then at most one line per kind and minute."""

    def __init__(self, logger: logging.Logger, interval_s: float = 60.0) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._last: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def note(self, kind: str, detail: str) -> None:
        """Count one fault.

        Args:
            kind: from a closed set of names, never from the peer's input.
            detail: in words, without content.
        """
        self.counts[kind] += 1
        now = time.monotonic()
        if now - self._last.get(kind, float("-inf")) >= self._interval_s:
            self._last[kind] = now
            self._logger.warning("%s: %s", kind, detail, extra={"kind": kind, "count": self.counts[kind]})


class OnceHandler(logging.Handler):
    """Takes what a library logs about a peer's faults into a `Once`: a flood of them is one line, too.

    Args:
        faults: counts them.
        kind: under this name.
    """

    def __init__(self, faults: Once, kind: str) -> None:
        super().__init__(logging.WARNING)
        self._faults = faults
        self._kind = kind

    def emit(self, record: logging.LogRecord) -> None:
        """Count one record; its text is cut, since a peer may have written part of it."""
        self._faults.note(self._kind, record.getMessage()[:_DETAIL_CHARACTERS])
