"""Supervision, with small programs that stand in for the real ones; every process here is real."""

import asyncio
import os
import signal
import sys
import time

import pytest

from stream_cli.home import open_home
from stream_cli.plan import Spec
from stream_cli.processes import ProgramEnded, Supervisor, last_line

SERVE = """
import json, os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
path = pathlib.Path(os.environ["READY"])
path.with_suffix(".new").write_text(json.dumps({"pid": os.getpid(), "port": 7}))
path.with_suffix(".new").rename(path)
signal.pause()
"""
"""Becomes ready, and ends on SIGTERM."""
STUBBORN = SERVE.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN").replace(
    "signal.pause()", "while True: signal.pause()"
)
"""Becomes ready, and ignores SIGTERM."""
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print(child.pid, flush=True)
"""
"""Leaves a child of its own behind, in a session of its own."""


@pytest.fixture
def home(tmp_path):
    return open_home(tmp_path)


def spec(home, name, code, *arguments):
    env = {"READY": str(home.ready(name)), "PATH": os.environ["PATH"]}
    return Spec(name, (sys.executable, "-c", code, *arguments), env, ready_file=home.ready(name))


def supervise(home, *, order=None, grace_s=5.0):
    return Supervisor(home, order or {}, grace_s=grace_s)


async def test_a_program_is_started_ready_and_stopped(home, gone):
    """Its facts come from its ready file; after the block the process and the file are gone."""
    async with supervise(home) as supervisor:
        await supervisor.start(spec(home, "one", SERVE))
        facts = await supervisor.wait_ready("one")
        pid = facts["pid"]
        assert (facts["port"], pid) == (7, supervisor.running["one"].process.pid)
    assert gone(pid)
    assert not home.ready("one").exists()


async def test_a_stale_ready_file_is_not_believed(home):
    """A ready file of an earlier process is removed at start, and one with another pid says nothing."""
    home.ready("one").write_text('{"pid": 1, "port": 9}')
    async with supervise(home) as supervisor:
        await supervisor.start(spec(home, "one", SERVE))
        assert (await supervisor.wait_ready("one"))["port"] == 7


async def test_a_program_that_fails_is_told_with_its_last_words(home):
    """Exit code, last line of this run and the log's path stand in one line."""
    home.log("one").write_text("an older run's words\n")
    code = "import sys; print('first', flush=True); sys.exit('port 7 is taken')"
    with pytest.raises(ProgramEnded) as caught:
        async with supervise(home) as supervisor:
            await supervisor.start(spec(home, "one", code))
            await supervisor.first_death()
    assert caught.value.message == f"one ended with code 1: port 7 is taken, see {home.log('one')}"
    assert home.log("one").read_text() == "an older run's words\nfirst\nport 7 is taken\n"


async def test_a_program_that_says_nothing_is_told_so(home):
    """An older run's words are not quoted as this one's."""
    home.log("one").write_text("an older run's words\n")
    async with supervise(home) as supervisor:
        await supervisor.start(spec(home, "one", "raise SystemExit(3)"))
        with pytest.raises(ProgramEnded, match="one ended with code 3: it wrote nothing"):
            await supervisor.first_death()


async def test_a_killed_program_is_told_with_the_signal(home):
    """Kill -9 from outside reads as such."""
    async with supervise(home) as supervisor:
        await supervisor.start(spec(home, "one", SERVE))
        os.kill((await supervisor.wait_ready("one"))["pid"], signal.SIGKILL)
        with pytest.raises(ProgramEnded, match="one was killed by SIGKILL"):
            await supervisor.first_death()


async def test_a_missing_program_is_told(home):
    """What can't be executed ends at once with the path in its words."""
    async with supervise(home) as supervisor:
        await supervisor.start(Spec("one", ("/nowhere/program",), {}))
        with pytest.raises(ProgramEnded, match="can't start /nowhere/program: No such file"):
            await supervisor.first_death()


async def test_a_program_that_ignores_sigterm_is_killed(home, gone):
    """After the grace SIGKILL ends it; one that obeys does not wait for the grace."""
    async with supervise(home, grace_s=0.2) as supervisor:
        await supervisor.start(spec(home, "stubborn", STUBBORN))
        pid = (await supervisor.wait_ready("stubborn"))["pid"]
    assert gone(pid)


async def test_programs_stop_in_order(home, gone):
    """The first rank has ended before the second is told to stop."""
    note = home.root / "ends"
    code = SERVE.replace("sys.exit(0)", "(open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'), sys.exit(0))")
    async with supervise(home, order={"gateway": 0, "relay": 1, "nats": 2}) as supervisor:
        for name in ("nats", "gateway", "relay"):
            await supervisor.start(spec(home, name, code, str(note), name))
        for name in ("nats", "gateway", "relay"):
            await supervisor.wait_ready(name)
    assert note.read_text().split() == ["gateway", "relay", "nats"]


async def test_what_a_dead_program_leaves_behind_is_ended(home, gone, wait_for_lines, tmp_path):
    """A child in a session of its own, orphaned by its parent's end, is adopted and ended with the rest."""
    async with supervise(home, grace_s=0.5) as supervisor:
        orphan = STUBBORN.replace('os.environ["READY"]', repr(str(tmp_path / "orphan")))
        await supervisor.start(spec(home, "parent", PARENT, orphan))
        (line,) = wait_for_lines(home.log("parent"), 1)
        with pytest.raises(ProgramEnded):
            await supervisor.first_death()
        os.kill(int(line), 0)  # it lives
    assert gone(int(line))


async def test_kill_ends_everything_at_once(home, gone):
    """The second Ctrl-C: no grace for anyone."""
    async with supervise(home, grace_s=60) as supervisor:
        for name in ("one", "two"):
            await supervisor.start(spec(home, name, STUBBORN))
        pids = [(await supervisor.wait_ready(name))["pid"] for name in ("one", "two")]
        begun = time.monotonic()
        supervisor.kill()
    assert all(map(gone, pids))
    assert time.monotonic() - begun < 30


async def test_some_programs_can_be_stopped_and_started_again(home):
    """Stopping a few is no death of the rest, and a name can be used again."""
    async with supervise(home) as supervisor:
        for name in ("one", "two"):
            await supervisor.start(spec(home, name, SERVE))
        first = (await supervisor.wait_ready("one"))["pid"]
        await supervisor.stop_programs(["one", "three"])
        assert set(supervisor.running) == {"two"}
        await supervisor.start(spec(home, "one", SERVE))
        assert (await supervisor.wait_ready("one"))["pid"] != first
        death = asyncio.ensure_future(supervisor.first_death())
        assert not (await asyncio.wait([death], timeout=0))[0]
        death.cancel()


async def test_programs_start_in_turn(home, wait_for_lines):
    """With room for one at a time, the next starts when the one before is ready."""
    note = home.root / "starts"
    code = (
        "import os, sys\nready = [p for p in sys.argv[2].split(',') if p and os.path.exists(p)]\n"
        "open(sys.argv[1], 'a').write(f'{len(ready)}\\n')\n" + SERVE
    )
    names = ["one", "two", "three"]
    files = ",".join(str(home.ready(name)) for name in names)
    async with supervise(home) as supervisor:
        specs = [spec(home, name, code, str(note), files) for name in names]
        await supervisor.start_in_turn(specs, at_once=1, head_start_s=60)
        assert wait_for_lines(note, 3) == ["0", "1", "2"]


async def test_a_slow_program_gives_way_after_its_head_start(home, wait_for_lines):
    """One that is never ready holds up the next for its head start only."""
    async with supervise(home) as supervisor:
        slow = spec(home, "slow", "print('up', flush=True)\nimport signal; signal.pause()")
        await supervisor.start_in_turn([slow, spec(home, "one", SERVE)], at_once=1, head_start_s=0.05)
        assert (await supervisor.wait_ready("one"))["port"] == 7
        assert not supervisor.running["slow"].ready


async def test_every_start_is_told(home):
    """Who writes down what runs hears of each start, with all process ids."""
    told = []
    async with Supervisor(home, {}, started=told.append) as supervisor:
        for name in ("one", "two"):
            await supervisor.start(spec(home, name, SERVE))
        assert [sorted(each) for each in told] == [["one"], ["one", "two"]]
        assert told[-1]["two"] == supervisor.running["two"].process.pid


async def test_children_get_no_signal_of_the_terminal(home):
    """Each program leads a session of its own, so that Ctrl-C reaches the supervisor alone."""
    async with supervise(home) as supervisor:
        await supervisor.start(spec(home, "one", SERVE))
        pid = (await supervisor.wait_ready("one"))["pid"]
        assert os.getsid(pid) == pid != os.getsid(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("one\ntwo\n\n", "two"),
        ('{"level": "error", "msg": "no broker"}\n', "no broker"),
        ('{"msg": "failed", "exception": "Traceback\\n  x\\nValueError: y"}\n', "failed: ValueError: y"),
        ('Traceback (most recent call last):\n  File "x"\nValueError: y\n', "ValueError: y"),
        ('{"other": 1}\n', '{"other": 1}'),
        ("7\n", "7"),
        ("\udcff\n", "\ufffd"),
    ],
)
def test_the_last_line_as_people_read_it(tmp_path, text, expected):
    """JSON lines give their message, tracebacks their last line; bytes that are no UTF-8 do no harm."""
    (tmp_path / "log").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert last_line(tmp_path / "log") == expected
    assert last_line(tmp_path / "none") == ""
