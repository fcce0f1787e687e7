"""What the tests of the command share: the command itself, and waiting for processes and lines."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_cli.__main__ import app

# A test run under nohup, or in the background of a script, ignores these, and so would all programs that it starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


PATIENCE_S = 30.0
AWAY = ("STREAM_", "NATS_URL", "OPENAI_", "OPENROUTER_")


def environment(**more):
    """Ours, without what would lead `stream up` elsewhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith(AWAY)} | more


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Runs the command to its end in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, env=None):
        for name in os.environ:
            if name.startswith(AWAY):
                monkeypatch.delenv(name)
        done = CliRunner().invoke(app, [str(each) for each in arguments], env=env or {})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def stream_process(tmp_path):
    """Runs the command to its end as a process of its own, in an empty folder."""

    def run(*arguments, env=None):
        done = subprocess.run(
            [sys.executable, "-m", "stream_cli", *map(str, arguments)],
            env=environment(**(env or {})),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


class Console:
    """A running command, whose output is read line by line."""

    def __init__(self, process):
        self.process = process
        self.seen = ""

    def read_until(self, text):
        """Read lines until one holds the text; fails with what was seen when it never comes."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.process.stdout], [], [], left)[0]
            piece = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert piece, f"{text!r} did not come:\n{self.seen}\n{self.errors()}"
            self.seen += piece.decode()
        return self.seen

    def errors(self):
        """What it wrote to stderr; it is told to stop first."""
        _stop(self.process)
        return self.process.stderr.read().decode()

    def end(self, number=None):
        """Send a signal and wait for the end: (exit code, stdout, stderr)."""
        if number is not None:
            self.process.send_signal(number)
        out, error = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, self.seen + out.decode(), error.decode()


@pytest.fixture
def stream_up(tmp_path):
    """Starts `stream up` as a process; a test that fails leaves none behind."""
    with contextlib.ExitStack() as stack:

        def run(*arguments, env=None):
            process = subprocess.Popen(
                [sys.executable, "-m", "stream_cli", "up", *map(str, arguments)],
                env=environment(**(env or {})),
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(_end, process)
            return Console(process)

        yield run


def _stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _end(process):
    _stop(process)
    process.stdout.close()
    process.stderr.close()


@pytest.fixture
def gone():
    """Waits until a process that need not be a child of this one has ended."""

    def wait(pid):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
        finally:
            os.close(descriptor)

    return wait


@pytest.fixture
def wait_for_lines():
    """Waits until a file holds a number of lines; gives them."""

    def wait(path: Path, count: int):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            lines = path.read_text().splitlines() if path.exists() else []
            if len(lines) >= count:
                return lines
            time.sleep(0.01)
        raise AssertionError(f"{path} has not {count} lines")

    return wait
