"""Failures in words that an operator understands. Pure."""

import datetime
import json
import signal
from typing import Final

_OUT_OF_MEMORY: Final = " (often: out of memory)"
_MAX_TAIL: Final = 300
"""Characters of a log that a reason quotes; the whole log lies beside it."""
_HOUR_S: Final = 3600.0

_MEANINGS: Final = {
    "the GPU's memory is too small for the model and its cache": (
        "CUDA out of memory",
        "OutOfMemoryError",
        "CUDA error: out of memory",
        "HIP out of memory",
        "No available memory for the cache blocks",
        "less than desired GPU memory utilization",
        "larger than the maximum number of tokens that can be stored",
        "larger than the available KV cache memory",
    ),
    "the node offers the engine no GPU": (
        "No CUDA GPUs are available",
        "no CUDA-capable device",
        "Found no NVIDIA driver",
        "No HIP GPUs are available",
        "Failed to infer device type",
        "NVML Shared Library Not Found",
        "CUDA driver initialization failed",
    ),
    "the model is not where the pool says, or may not be read": (
        "is not a local folder and is not a valid model identifier",
        "Repository Not Found",
        "Repo id must",
        "does not appear to have a file named",
        "Can't load the model",
        "Can't load the configuration",
        "Can't load tokenizer",
        "Cannot access gated repo",
        "LocalEntryNotFoundError",
        "Invalid repository ID or local directory",
    ),
    "the engine's port is in use on the node": ("Address already in use", "EADDRINUSE"),
    "the node's disk, or its quota, is full": ("No space left on device", "Disk quota exceeded"),
    "the node's memory is too small for the engine": (
        "oom-kill",
        "oom_kill",
        "Cannot allocate memory",
        "std::bad_alloc",
    ),
    "the batch system ended it at its walltime": ("DUE TO TIME LIMIT", "exceeded limit walltime", "walltime reached"),
    "a program or file is missing on the node": ("No module named", "command not found", "No such file or directory"),
}
"""What engines and batch systems write, and what it means; the first that fits counts."""


def ended(exit_code: int | None, tail: str, *, left_s: float, started: bool = True, told: str = "") -> str:
    """Say why a job that should have gone on is over.

    Args:
        exit_code: negative: the signal that killed it; None: not known.
        tail: the last lines of its log, or why it never started.
        left_s: seconds that its lease still had.
        started: whether the cluster took it at all.
        told: the cluster's own words for its end.
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
    if told:
        how += f" (its cluster says: {quote(told)})"
    meaning, line = understand(tail)
    if meaning:
        return f"{meaning}: {how}; its log says: {line}"
    meaning, _ = understand(told)
    how = f"{meaning}: {how}" if meaning else how
    return f"{how}; its log ends: {line}" if line else f"{how}; its log is empty"


def gave_up(told: str) -> str:
    """Say why a worker announced its own end.

    Args:
        told: its words, with the last lines of its engine's log.
    """
    meaning, line = understand(told)
    first = quote(told.strip().partition("\n")[0])
    words = first if line in first else f"{first}; its log {'says' if meaning else 'ends'}: {line}"
    return f"{meaning}: {words}" if meaning else words


def understand(text: str) -> tuple[str, str]:
    """Look through a log's last lines for what engines write when they fail.

    Returns:
        What it means, empty when nothing known is there; and the line that says it, else the last one.
    """
    for meaning, phrases in _MEANINGS.items():
        for line in text.splitlines():
            if any(phrase.lower() in line.lower() for phrase in phrases):
                return meaning, quote(line)
    return "", quote(text)


def queued_too_long(waited_s: float, words: str) -> str:
    """Say why a job was taken back from the queue.

    Args:
        waited_s: seconds that it was there.
        words: why it waits, as the batch system says it.
    """
    why = f", which says: {quote(words)}" if words else ""
    return f"the job was still waiting in the cluster's queue after {waited_s:,.0f} s{why}"


def budget_spent(cluster: str, *, limit_s: float, left_s: float, least_s: float) -> str:
    """Say why a cluster's budget allows no further job.

    Args:
        cluster: its name.
        limit_s: node-seconds of a day.
        left_s: node-seconds of today that are neither used nor reserved.
        least_s: node-seconds without which a job is of no use.
    """
    return (
        f"the budget of cluster {cluster!r}, {limit_s / _HOUR_S:,.4g} node-hours a day, has"
        f" {max(0.0, left_s) / _HOUR_S:,.2f} left and a worker needs {least_s / _HOUR_S:,.2f};"
        " a new day begins at 00:00 UTC"
    )


def offline(cluster: str, reason: str) -> str:
    """Say that a cluster takes no jobs."""
    return f"cluster {cluster!r} is offline" + (f": {quote(reason)}" if reason else "")


def clock_of(at: float) -> str:
    """Write a time of day, and the day, as an operator reads it."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%H:%M UTC on %Y-%m-%d")


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
