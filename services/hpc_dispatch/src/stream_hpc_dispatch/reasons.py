"""Failures in words that an operator understands. Pure."""

import json
import signal
from typing import Final

_OUT_OF_MEMORY: Final = " (often: out of memory)"
_MAX_TAIL: Final = 300
"""Characters of a log that a reason quotes; the whole log lies beside it."""


def ended(exit_code: int | None, tail: str, *, left_s: float, started: bool = True) -> str:
    """Say why a job that should have gone on is over.

    Args:
        exit_code: negative: the signal that killed it; None: not known.
        tail: the last lines of its log, or why it never started.
        left_s: seconds that its lease still had.
        started: whether the cluster took it at all.
    """
    if not started:
        return f"the job could not be started: {quote(tail) or 'no reason was given'}"
    if exit_code is None:
        how = f"the worker ended, {left_s:,.0f} s before its lease"
    elif exit_code == 0:
        how = f"the worker ended by itself, {left_s:,.0f} s before its lease"
    elif exit_code < 0:
        hint = _OUT_OF_MEMORY if exit_code == -signal.SIGKILL else ""
        how = f"the worker was killed by {_signal_name(-exit_code)}{hint}"
    else:
        how = f"the worker ended with exit code {exit_code}"
    last = quote(tail)
    return f"{how}; its log ends: {last}" if last else f"{how}; its log is empty"


def never_ready(limit_s: float, *, announced: bool, note: str) -> str:
    """Say why a start was given up.

    Args:
        limit_s: seconds it had.
        announced: whether the worker's announcement came.
        note: the worker's own words about its engine.
    """
    if not announced:
        return f"the worker did not announce itself within {limit_s:g} s: it reached no relay, or did not come so far"
    return f"the engine was not ready within {limit_s:g} s" + (f": {quote(note)}" if note else "")


def lost(silence_s: float) -> str:
    """Say why a pilot was given up after silence."""
    return f"no sign of life for {silence_s:,.0f} s: the worker hangs, or its way to the relay is cut"


def quote(text: str) -> str:
    """Take the last line that says something, on one line and of bounded length; of a JSON log line, its message."""
    lines = [line for raw in text.splitlines() if (line := " ".join(raw.split()))]
    if not lines:
        return ""
    printable = "".join(character if character.isprintable() else "?" for character in _message(lines[-1]))
    return printable if len(printable) <= _MAX_TAIL else f"{printable[:_MAX_TAIL]}..."


def _message(line: str) -> str:
    """Read our programs' JSON log lines: what went wrong stands in "exception", else in "msg"."""
    if not line.startswith("{"):
        return line
    try:
        record = json.loads(line)
    except ValueError:
        return line
    text = record.get("exception") or record.get("msg")
    return text.splitlines()[-1] if isinstance(text, str) and text.strip() else line


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
