"""What was written down about a run, and sweeping up after a killed one."""

import os
import signal
import subprocess
import sys

import pytest

from stream_cli import leftovers
from stream_cli.home import open_home
from stream_core import processes

SLEEP = "import signal\nprint('up', flush=True)\nsignal.pause()"
STUBBORN = (
    "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: signal.pause()"
)


@pytest.fixture
def home(tmp_path):
    return open_home(tmp_path)


@pytest.fixture
def program():
    started = []

    def start(code):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_was_written_is_read(home):
    """The record knows this process as alive, its gateway and its programs."""
    leftovers.write(home, host="127.0.0.1", port=8080, programs={"relay": os.getpid()})
    record = leftovers.read(home)
    assert (record.alive, record.host, record.port) == (True, "127.0.0.1", 8080)
    assert record.program_alive("relay")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": 1}', '{"pid":1,"identity":"","host":"","port":0,"programs":[]}']
)
def test_an_illegible_record_is_none(home, text):
    """Half a file, or one of another shape, is as good as none."""
    home.running.write_text(text)
    assert leftovers.read(home) is None
    assert leftovers.sweep(home) == []


def test_a_later_process_with_the_same_id_is_not_touched(home, program):
    """Identity is id and start time: a record that names another start time ends nothing."""
    process = program(SLEEP)
    leftovers.write(home, host="h", port=0, programs={"relay": process.pid})
    home.running.write_text(home.running.read_text().replace(leftovers.identity(process.pid), "boot:1"))
    assert leftovers.sweep(home) == []
    assert process.poll() is None


def test_a_zombie_and_an_unknown_id_do_not_live(program):
    """A process that has ended has no identity, whether collected or not."""
    process = program(SLEEP)
    assert leftovers.identity(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert leftovers.identity(process.pid) == ""
    process.wait()
    assert leftovers.identity(process.pid) == ""


def test_leftovers_are_ended_and_their_ready_files_removed(home, program, monkeypatch):
    """The next start ends what a killed run left, also what ignores SIGTERM, and forgets its ready files."""
    monkeypatch.setattr(leftovers, "_GRACE_S", 0.3)
    processes = {"relay": program(SLEEP), "judge": program(STUBBORN)}
    leftovers.write(home, host="h", port=0, programs={name: p.pid for name, p in processes.items()})
    home.ready("relay").write_text("{}")
    assert set(leftovers.sweep(home)) == {"relay", "judge"}
    assert processes["relay"].wait(5) == -signal.SIGTERM
    assert processes["judge"].wait(5) == -signal.SIGKILL
    assert list(home.run.iterdir()) == []


def test_workers_that_a_killed_dispatch_left_are_ended(home, program):
    """The pid files beside the workers' logs are read; one that names another start time ends nothing."""
    worker, stranger = program(SLEEP), program(SLEEP)
    home.workers.mkdir()
    (home.workers / "aa.pid").write_text(f"{worker.pid} {leftovers.identity(worker.pid)}\n")
    (home.workers / "bb.pid").write_text(f"{stranger.pid} boot:1\n")
    (home.workers / "cc.pid").write_text("nonsense")
    assert leftovers.sweep(home) == ["worker aa"]
    assert worker.wait(5) == -signal.SIGTERM
    assert stranger.poll() is None
    assert list(home.workers.iterdir()) == []


def test_both_ways_to_tell_a_process_apart_agree_on_life_and_death(program):
    """Where there is no /proc, `ps` tells the start time; it too is empty for what has ended."""
    process = program(SLEEP)
    assert processes._identity_by_ps(process.pid) == processes._identity_by_ps(process.pid) != ""
    process.kill()
    process.wait()
    assert processes._identity_by_ps(process.pid) == ""
