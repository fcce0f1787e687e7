"""What runs under a state folder: written down at start, read by `stream status`, swept up after a killed run."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stream_cli.home import Home, write_private
from stream_core.processes import identity

_GRACE_S: Final = 3.0
_POLL_S: Final = 0.05


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
        return _alive(self.programs[name])


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


def nats_port(record: Record) -> int:
    """Read the broker's port from its own command line, since it stands in no file; 0 when it can't be told."""
    try:
        pid, _ = record.programs["nats"]
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return int(words[words.index(b"-p") + 1])
    except (KeyError, OSError, ValueError, IndexError):
        return 0


def sweep(home: Home) -> list[str]:
    """End what a killed `stream up` left running, and clear its ready files; call it with the lock held.

    Returns:
        The names of the programs that were ended.
    """
    record = read(home)
    left = {**(record.programs if record else {}), **_workers(home)}
    left = {name: process for name, process in left.items() if _alive(process)}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, _ in filter(_alive, left.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)
        deadline = time.monotonic() + _GRACE_S
        while any(map(_alive, left.values())) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    for path in (*home.run.glob("*.json"), *home.workers.glob("*.pid")):
        path.unlink(missing_ok=True)
    return list(left)


def _alive(process: tuple[int, str]) -> bool:
    pid, told = process
    return bool(told) and identity(pid) == told


def _workers(home: Home) -> dict[str, tuple[int, str]]:
    """Read what hpc_dispatch wrote down beside the logs of its workers: "<process id> <identity>" each."""
    found = {}
    for path in home.workers.glob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid, _, told = path.read_text(encoding="utf-8").strip().partition(" ")
            found[f"worker {path.stem[:8]}"] = (int(pid), told)
    return found
