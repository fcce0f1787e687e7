"""`stream batch` against what `stream up` starts: its broker's permissions, its key file, its gateway."""

import json
import signal
import subprocess
import sys

import pytest
import yaml

from stream_core.testing.engine import scripted_engine

pytestmark = pytest.mark.process


def line(custom_id, *, model="local", **script):
    """One request of a batch."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "script": script}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"


@pytest.fixture
def home(tmp_path, stream_up):
    """A running broker and gateway, a scripted engine as the local tier; the file's folder is the current one."""
    with scripted_engine() as engine:
        model = {"id": "scripted", "context_window": 8192}
        tiers = [{"name": "local", "base_url": f"{engine}/v1", "privacy": "restricted", "models": [model]}]
        (tmp_path / "stream.yaml").write_text(yaml.safe_dump({"tiers": tiers, "clusters": []}))
        console = stream_up("--home", tmp_path / "home", "--only", "nats,gateway", "--port", "0")
        console.read_until("ready in")
        yield tmp_path / "home"
        assert console.end(signal.SIGINT)[0] == 0


def read(path):
    """Lines of a file of results, by custom_id."""
    return {entry["custom_id"]: entry for entry in map(json.loads, path.read_text().splitlines())}


def test_a_file_from_beginning_to_end(tmp_path, home, stream_process):
    """All lines succeed: exit code 0, answers in the file. One bad line: exit code 1, and it is in the other file."""
    (tmp_path / "good.jsonl").write_text("".join(line(f"r{n}", model="nope", tokens=n) for n in range(1, 31)))
    done = stream_process("batch", "run", "good.jsonl", "--model", "local", "--home", home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("batch_")
    assert "completed: 30 of 30 lines succeeded" in done.stderr
    answers = read(tmp_path / "good.jsonl.results.jsonl")
    assert answers["r7"]["response"]["body"]["choices"][0]["message"]["content"] == " token" * 7
    assert len(answers) == 30
    assert not (tmp_path / "good.jsonl.errors.jsonl").exists()
    (tmp_path / "mixed.jsonl").write_text(line("good") + "nonsense\n")
    done = stream_process("batch", "run", "mixed.jsonl", "--output", "out.jsonl", "--home", home)
    assert done.returncode == 1
    assert "invalid_line: line 2: not valid JSON" in done.stderr
    assert "1 of 2 lines succeeded, 1 failed" in done.stderr
    assert set(read(tmp_path / "out.jsonl")) == {"good"}
    assert read(tmp_path / "mixed.jsonl.errors.jsonl")[None]["error"]["line"] == 2


def test_it_goes_on_without_who_follows_it(tmp_path, home, stream_process):
    """Ctrl-C leaves the batch running and says how to see it again; `follow` writes what came of it."""
    (tmp_path / "slow.jsonl").write_text("".join(line(f"r{n}", delay_ms=1_500) for n in range(3)))
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_cli", "batch", "run", "slow.jsonl", "--home", str(home)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    batch = process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"stream batch follow {batch}" in error
    done = stream_process("batch", "follow", batch, "--home", home)
    assert done.returncode == 0, done.stderr
    assert set(read(tmp_path / f"{batch}.results.jsonl")) == {"r0", "r1", "r2"}


def test_cancel(tmp_path, home, stream_process):
    """A cancelled batch: exit code 1 of who follows it, each line told in the error file."""
    (tmp_path / "long.jsonl").write_text("".join(line(f"r{n}", delay_ms=60_000) for n in range(5)))
    started = stream_process("batch", "run", "long.jsonl", "--no-watch", "--home", home)
    assert started.returncode == 0, started.stderr
    batch = started.stdout.strip()
    assert f"{batch} is cancel" in stream_process("batch", "cancel", batch, "--home", home).stdout
    done = stream_process("batch", "follow", batch, "--home", home)
    assert done.returncode == 1
    assert "cancelled: 0 of 5 lines succeeded, 5 failed" in done.stderr
    codes = {entry["error"]["code"] for entry in read(tmp_path / f"{batch}.errors.jsonl").values()}
    assert codes == {"batch_cancelled"}
    again = stream_process("batch", "cancel", batch, "--home", home)
    assert again.returncode == 1
    assert f"the batch {batch} is cancelled" in again.stderr


def test_clear_words(tmp_path, home, stream_process):
    """No such file, no such batch, a window that is none: one line, exit code 1."""
    for arguments, words in (
        (("run", "missing.jsonl"), "FILE: can't read missing.jsonl: No such file"),
        (("follow", "batch_" + "0" * 32), "there is no batch"),
        (("run", "stream.yaml", "--window", "soon"), "completion_window: 'soon' is not like 24h"),
    ):
        done = stream_process("batch", *arguments, "--home", home)
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
