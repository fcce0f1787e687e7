"""What runs under a state folder: written down at start, read by `stream status`, swept up after a killed run."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stream_cli.home import Home, write_private

_GRACE_S: Final = 3.0
_POLL_S: Final = 0.05
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
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return "" if told.startswith("Z") else told.partition(" ")[2].strip()


@dataclass(frozen=True)
class Record:
    """What `stream up` wrote down."""

    pid: int
    identity: str
    host: str
    port: int
    """Of the gateway; 0 while it is not known."""
    programs: dict[str, tuple[int, str]]
    """(process id, identity) by name."""

    @property
    def alive(self) -> bool:
        """Whether the supervisor itself lives."""
        return bool(self.identity) and identity(self.pid) == self.identity

    def program_alive(self, name: str) -> bool:
        """Whether one of its programs lives."""
        pid, told = self.programs[name]
        return bool(told) and identity(pid) == told


def write(home: Home, *, host: str, port: int, programs: Mapping[str, int]) -> None:
    """Write down what runs now, by this process."""
    told = {name: (pid, identity(pid)) for name, pid in programs.items()}
    own = os.getpid()
    record = {"pid": own, "identity": identity(own), "host": host, "port": port, "programs": told}
    write_private(home.running, json.dumps(record).encode())


def read(home: Home) -> Record | None:
    """Read what was written down; None when nothing was, or nothing legible."""
    try:
        data: Any = json.loads(home.running.read_bytes())
        programs = {str(name): (int(pid), str(told)) for name, (pid, told) in data["programs"].items()}
        return Record(int(data["pid"]), str(data["identity"]), str(data["host"]), int(data["port"]), programs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def sweep(home: Home) -> list[str]:
    """End what a killed `stream up` left running, and clear its ready files; call it with the lock held.

    Returns:
        The names of the programs that were ended.
    """
    record = read(home)
    found = [name for name in record.programs if record.program_alive(name)] if record else []
    if record is not None and found:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for name in filter(record.program_alive, found):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(record.programs[name][0], number)
            deadline = time.monotonic() + _GRACE_S
            while any(map(record.program_alive, found)) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
    for path in home.run.glob("*.json"):
        path.unlink(missing_ok=True)
    return found
