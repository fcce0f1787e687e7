"""`stream up` with real programs: what runs, how it ends, and that nothing is ever left behind."""

import json
import os
import signal
import socket
import time

import psutil
import pytest
import yaml

from stream_cli import leftovers
from stream_cli.home import Home, locked, open_home
from stream_core.testing.broker import run_broker

pytestmark = pytest.mark.process
FEW = ("--only", "nats,judge", "--port", "0")


def family(console):
    """All processes that a running command has started, and theirs."""
    return [each.pid for each in psutil.Process(console.process.pid).children(recursive=True)]


def test_a_few_programs_run_until_ctrl_c(tmp_path, stream, stream_up, gone):
    """--only starts what it names; status sees it; Ctrl-C ends it with code 0 and leaves no process."""
    console = stream_up("--home", tmp_path / "home", *FEW)
    text = console.read_until("ready in")
    assert "Started   nats, judge" in text
    pids = family(console)
    assert len(pids) == 2
    seen = stream("status", "--home", tmp_path / "home")
    assert seen.returncode == 0
    assert [line.split()[:2] for line in seen.stdout.splitlines()] == [
        ["stream", "up"],
        ["nats", "alive"],
        ["judge", "alive"],
    ]
    code, out, error = console.end(signal.SIGINT)
    assert (code, out.splitlines()[-1], error) == (0, "stopped", "")
    assert all(map(gone, pids))
    assert stream("status", "--home", tmp_path / "home").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_too(tmp_path, stream_up, gone, number):
    """SIGTERM and a closed terminal are like Ctrl-C."""
    console = stream_up("--home", tmp_path / "home", "--only", "nats")
    console.read_until("ready in")
    pids = family(console)
    assert console.end(number)[0] == 0
    assert all(map(gone, pids))


def test_a_second_ctrl_c_does_not_wait(tmp_path, stream_up, gone):
    """A program that does not react to SIGTERM would hold up the first; the second kills it."""
    for _ in range(3):  # a busy machine gets more tries
        console = stream_up("--home", tmp_path / "home", *FEW)
        console.read_until("ready in")
        pids = family(console)
        record = leftovers.read(Home(tmp_path / "home"))
        os.kill(record.programs["judge"][0], signal.SIGSTOP)
        console.process.send_signal(signal.SIGINT)
        console.read_until("stopping")
        begun = time.monotonic()
        assert console.end(signal.SIGINT)[0] == 0
        took_s = time.monotonic() - begun
        assert all(map(gone, pids))
        if took_s < 5:
            break
    assert took_s < 5  # the first one's grace


def test_a_busy_port_is_told_before_anything_starts(tmp_path, stream_up):
    """One line with port and option, exit code 1, and no program was started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, error = stream_up("--home", tmp_path / "home", "--port", port).end()
    assert (code, out) == (1, "")
    assert f"port {port} (Address already in use); choose another one with --port or STREAM_PORT" in error
    assert len(error.splitlines()) == 1
    assert list((tmp_path / "home" / "logs").iterdir()) == []


def test_two_on_one_state_folder_do_not_go(tmp_path, stream_up):
    """The second is refused with the first one's process id, and the first goes on."""
    with locked(open_home(tmp_path / "home")):
        code, out, error = stream_up("--home", tmp_path / "home", *FEW).end()
    assert (code, out) == (1, "")
    assert f"`stream up` runs already on {tmp_path / 'home'} (process {os.getpid()})" in error
    assert len(error.splitlines()) == 1


def test_a_program_that_dies_ends_all(tmp_path, stream_up, gone):
    """Its name and end stand in one line, the exit code is 1, the others are stopped."""
    console = stream_up("--home", tmp_path / "home", *FEW)
    console.read_until("ready in")
    pids = family(console)
    os.kill(leftovers.read(Home(tmp_path / "home")).programs["nats"][0], signal.SIGKILL)
    code, _, error = console.end()
    assert code == 1
    assert error.startswith("stream: nats was killed by SIGKILL: ")
    assert error.endswith(f"see {tmp_path / 'home' / 'logs' / 'nats.log'}\n")
    assert len(error.splitlines()) == 1
    assert all(map(gone, pids))


def test_a_program_with_a_wrong_setting_ends_all(tmp_path, stream_up):
    """The user's environment reaches the program, and its complaint comes back as our one line."""
    console = stream_up("--home", tmp_path / "home", *FEW, env={"STREAM_JUDGE__CACHE_ENTRIES": "many"})
    code, out, error = console.end()
    assert (code, out) == (1, "")
    assert error.startswith("stream: judge ended with code 1: ")
    assert "STREAM_JUDGE__CACHE_ENTRIES" in error
    assert len(error.splitlines()) == 1


def test_a_start_that_takes_too_long_is_given_up(tmp_path, stream_up):
    """--wait: the error says what was waited for, and nothing is left running. The judge is one that is never ready."""
    package = tmp_path / "path" / "stream_judge"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import signal; signal.pause()")
    env = {"PYTHONPATH": str(package.parent)}
    code, out, error = stream_up("--home", tmp_path / "home", "--only", "judge", "--wait", "1", env=env).end()
    assert (code, out) == (1, "")
    assert error == "stream: not ready within 1 s: waiting for judge\n"


def test_a_changed_file_reaches_the_services(tmp_path, stream_up):
    """./stream.yaml is followed: a right change is written for the services, a wrong one is told and left out."""
    home, file = Home(tmp_path / "home"), tmp_path / "stream.yaml"
    file.write_text("policy: {good_enough: 0.5}\n")
    console = stream_up("--home", home.root, "--only", "nats")
    console.read_until("ready in")
    file.write_text("policy: {good_enough: 5}\n")
    console.read_until("the last good one stays in force")
    file.write_text("policy: {good_enough: 0.9}\n")
    console.read_until("takes it over")
    assert yaml.safe_load(home.deployment.read_text())["policy"] == {"good_enough": 0.9}
    assert console.end(signal.SIGINT)[0] == 0


def test_an_existing_broker_wins(tmp_path, stream_up):
    """With NATS_URL no nats-server is started, and the relay works with the given one."""
    with run_broker() as url:
        console = stream_up("--home", tmp_path / "home", "--only", "nats,relay", env={"NATS_URL": url})
        assert "Started   relay\n" in console.read_until("ready in")
        assert console.end(signal.SIGINT)[0] == 0


def test_a_remembered_model_that_is_wrong_is_put_right(tmp_path, stream_up):
    """What the engine served last time is only a guess: the services are started again on what it says now."""
    home = open_home(tmp_path / "home")
    old = {"model": "older", "context": 512, "demo": False, "source": "models_dir"}
    home.engine_facts.write_text(json.dumps(old))
    env = {"HF_HUB_CACHE": str(tmp_path)}
    console = stream_up("--home", home.root, "--only", "nats,engine,judge", "--model", "demo", env=env)
    assert "local   stream-demo" in console.read_until("ready in")
    deployment = yaml.safe_load(home.deployment.read_text())
    assert [model["id"] for model in deployment["tiers"][0]["models"]] == ["stream-demo"]
    assert len([line for line in home.log("judge").read_text().splitlines() if '"msg": "ready"' in line]) >= 1
    assert console.end(signal.SIGINT)[0] == 0
    assert json.loads(home.engine_facts.read_text())["model"] == "stream-demo"


def test_a_killed_supervisor_takes_its_programs_along(tmp_path, stream_up, gone):
    """After kill -9 the kernel tells the programs, they end by themselves, and the state folder can be used again."""
    console = stream_up("--home", tmp_path / "home", *FEW)
    console.read_until("ready in")
    pids = family(console)
    assert console.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert all(map(gone, pids))
    again = stream_up("--home", tmp_path / "home", "--only", "nats")
    again.read_until("ready in")
    assert again.end(signal.SIGINT)[0] == 0


def test_the_whole_road(tmp_path, stream_process, stream_up, gone):
    """All programs, one worker: each tier answers; of a killed start nothing is left once the next one is up."""
    home = Home(tmp_path / "home")
    env = {"HF_HUB_CACHE": str(tmp_path)}
    console = stream_up("--home", home.root, "--port", "0", "--model", "demo", env=env)
    text = console.read_until("ready in")
    assert text.count("demo model: answers are not to be believed") == 2
    port = json.loads(home.ready("gateway").read_text())["port"]
    assert f"http://127.0.0.1:{port}/v1" in text
    for tier in ("local", "hpc"):
        told = stream_process("chat", "What is a list?", "--model", tier, "--home", home.root)
        assert (told.returncode, told.stderr) == (0, "")
        answer, _, who = told.stdout.partition(f"\n\n[{tier}: stream-demo")
        assert answer.strip()
        assert "demo model: answers are not to be believed" in who
    pids = family(console)
    assert len(pids) == 10  # broker, engine, five services, the worker, its engine and that one's guard
    arguments = [" ".join(psutil.Process(pid).cmdline()) for pid in pids]
    secrets = [path.read_text().strip() for path in (home.root / "secrets").iterdir()]
    assert not [secret for secret in secrets for line in arguments if secret in line]
    assert console.end(signal.SIGKILL)[0] == -signal.SIGKILL
    again = stream_up("--home", home.root, "--only", "nats")
    again.read_until("ready in")
    assert all(map(gone, pids))
    assert again.end(signal.SIGINT)[0] == 0
