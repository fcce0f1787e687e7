"""Telling processes apart: an id is used again, an id with its start time is not."""

import subprocess
from pathlib import Path
from typing import Final

_START_FIELD: Final = 19  # of /proc/<pid>/stat, counted after the command's name: starttime, field 22 of proc(5)


def identity(pid: int) -> str:
    """Name a process so that a later one with the same id is told apart; empty when it does not live."""
    return _identity_by_proc(pid) if Path("/proc/self/stat").exists() else _identity_by_ps(pid)


def _identity_by_proc(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot}:{fields[_START_FIELD]}"


def _identity_by_ps(pid: int) -> str:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603  (a number)
    return "" if told.startswith("Z") else told.partition(" ")[2].strip()
