"""Logs: one JSON object a line on stderr, with request and trace where there is one; never prompts, never answers.

Fields come from `extra={"request_id": ..., ...}`. What is logged per kind of fault is limited by `Once`, so that a
flood of bad frames is a counter and one line, not a full disk. The counters of a whole program are its `FAULTS`: they
stand in a line "faults" of its log, at its end and while they change, and on `/metrics` where it serves probes.
"""

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from typing import Final

from stream_core.trace_context import CURRENT

_log = logging.getLogger(__name__)
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
        if (trace := CURRENT.get()) is not None:
            fields |= {"trace_id": trace.trace, "span_id": trace.span}
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


class Ledger:
    """What a program has counted, by kind of fault."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def count(self, kind: str, times: int = 1) -> None:
        """Add to a kind; see `Once.note`."""
        if times:
            self.counts[kind] += times
            self._changed.set()

    def log(self) -> None:
        """Write one line with all counts."""
        self._changed.clear()
        _log.log(logging.WARNING if self.counts else logging.INFO, "faults", extra={"faults": dict(self.counts)})

    async def log_changes(self, interval_s: float = 60.0) -> None:
        """Write the line within `interval_s` of a change, and no more often; until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(interval_s)
            self.log()

    def metrics(self) -> bytes:
        """The counts as Prometheus reads them (text format 0.0.4): kinds and numbers, nothing of any request."""
        lines = ["# HELP stream_faults_total What this program refused or dropped, and what failed, by kind."]
        lines.append("# TYPE stream_faults_total counter")
        lines += [f'stream_faults_total{{kind="{kind}"}} {count}' for kind, count in sorted(self.counts.items())]
        return "\n".join([*lines, ""]).encode()


FAULTS: Final = Ledger()
"""Of this process: every `Once` counts here, too."""


class Once:
    """Counts faults by kind and logs the first of each kind, then at most one line per kind and minute."""

    def __init__(self, logger: logging.Logger, interval_s: float = 60.0, ledger: Ledger = FAULTS) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._ledger = ledger
        self._last: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def count(self, kind: str, times: int = 1) -> None:
        """Count what is no news for a log: the tail of an answer whose client has left, say."""
        self.counts[kind] += times
        self._ledger.count(kind, times)

    def note(self, kind: str, detail: str) -> None:
        """Count one fault.

        Args:
            kind: from a closed set of names, never from the peer's input.
            detail: in words, without content.
        """
        self.count(kind)
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
