"""`stream-worker --job FILE`: a job that comes in a file, which is gone before the worker does anything with it."""

import subprocess
import sys

import msgspec
import pytest

from stream_core.errors import ConfigError
from stream_core.wire.job import EngineSpec, PilotJob
from stream_worker.__main__ import read_job, take_job_file

JOB = PilotJob(
    lease="ab" * 16,
    bootstrap_secret=b"very secret bytes, thirty-two...",
    ticket="a.ticket.of",
    relays=[],
    expires_unix_s=0,
    models=[],
    engine=EngineSpec(),
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stream_worker", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)


def test_the_file_is_read_and_gone(tmp_path):
    """What was in it is the job; the file is deleted."""
    file = tmp_path / "job.json"
    file.write_bytes(msgspec.json.encode(JOB))
    assert read_job(take_job_file(file)) == JOB
    assert not file.exists()


def test_a_file_that_is_not_there(tmp_path):
    """A second worker of the same job finds none, and says which."""
    with pytest.raises(ConfigError, match=f"the job file {tmp_path}/job.json: No such file"):
        take_job_file(tmp_path / "job.json")


def test_a_file_that_can_not_be_deleted(tmp_path, monkeypatch):
    """A secret that would stay is a reason not to start."""
    file = tmp_path / "job.json"
    file.write_bytes(b"{}")

    def unlink(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "unlink", unlink)
    with pytest.raises(ConfigError, match="Permission denied"):
        take_job_file(file)


@pytest.mark.process
def test_the_command_line_deletes_what_is_no_job(tmp_path):
    """The program takes its file and names the fault, without the content."""
    file = tmp_path / "job.json"
    file.write_text('{"lease": "not hex", "bootstrap_secret": "aGlkZGVu"}')
    ended = run("--job", str(file))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"stream-worker: job: the job in {file}: ")
    assert "aGlkZGVu" not in ended.stderr
    assert not file.exists()


@pytest.mark.process
def test_the_command_line_with_something_else():
    """Arguments that it does not know are named."""
    ended = run("--jobs", "x")
    assert (ended.returncode, ended.stderr) == (
        1,
        "stream-worker: arguments: --jobs x: it takes `--job FILE`, `doctor`, `--version`, or nothing\n",
    )
