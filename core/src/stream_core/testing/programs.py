"""Real programs for tests: started as processes, ready when they say so, ended by their own process id."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_POLL_S = 0.01


@dataclass
class Program:
    """A running program."""

    process: subprocess.Popen[bytes]
    log_path: Path
    ready: dict[str, Any] = field(default_factory=dict)

    def log(self) -> str:
        """What it has written to stdout and stderr so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self, timeout_s: float = 15.0) -> int:
        """Send SIGTERM and wait.

        Returns:
            The exit code.

        Raises:
            RuntimeError: it did not end, and was killed.
        """
        if self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise RuntimeError(f"it does not end when it is told to:\n{self.log()[-8_000:]}") from None
        return self.process.wait()


def wait_for_file(path: Path, process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait until a file is there, the process has ended, or the time is up; true when the file is there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists():
            return True
        if process.poll() is not None:
            return path.exists()
        time.sleep(_POLL_S)
    return False


@contextlib.contextmanager
def start(
    module: str,
    *,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    stdin: bytes | None = None,
    ready_timeout_s: float | None = 30.0,
) -> Iterator[Program]:
    """Run `python -m module` until the block ends.

    Args:
        module: of the program, e.g. "stream_relay".
        env: added to this process's environment; without `STREAM_*` of its own.
        arguments: after the module's name.
        stdin: what it reads, closed after that; None gives it an empty one.
        ready_timeout_s: seconds until its ready file must be there; None does not wait for one.

    Raises:
        RuntimeError: it ended or was not ready in time; the message holds its log.
    """
    with tempfile.TemporaryDirectory(prefix="stream-test-") as folder:
        ready_file, log_path = Path(folder, "ready.json"), Path(folder, "log")
        variable = f"{module.upper().replace('.', '_')}__READY_FILE"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAM_")}
        environment |= {variable: str(ready_file), **(env or {})}
        with log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (the module is the test's own choice)
                [sys.executable, "-m", module, *arguments],
                env=environment,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(process, log_path)
        try:
            if stdin is not None and process.stdin is not None:
                with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                    pipe.write(stdin)
            if ready_timeout_s is not None:
                if not wait_for_file(ready_file, process, ready_timeout_s):
                    raise RuntimeError(f"{module} is not ready (exit code {process.poll()}):\n{program.log()}")
                program.ready = json.loads(ready_file.read_text())
            yield program
        finally:
            program.stop()
