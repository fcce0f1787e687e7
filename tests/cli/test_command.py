"""The command as a whole: quick help, clear errors."""

import subprocess
import sys

import pytest


def test_help_imports_nothing_slow():
    """`stream --help` needs none of the libraries that its commands need, so that it is quick."""
    code = (
        "import sys; import stream_cli.__main__ as m\n"
        "try: m.app(['--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('pydantic', 'yaml', 'aiohttp', 'rich', 'cryptography', 'msgspec') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Start everything on this machine" in done.stdout


def test_version(stream_process):
    """--version prints name and number."""
    assert stream_process("--version").stdout == "stream-cli 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["--only", "judg"], {}, "--only: no program judg; there are nats"),
        (["--config", "none.yaml"], {}, "--config: there is no file none.yaml"),
        ([], {"STREAM_CONFIG": "none.yaml"}, "--config: there is no file none.yaml"),
        (["--cloud", "--port", "0"], {}, "--cloud: the cloud tier needs a provider's key in OPENAI_API_KEY or"),
        (["--port", "0"], {"NATS_URL": "http://x"}, "NATS_URL: not a broker's address"),
        (["--port", "0"], {"NATS_URL": "nats://127.0.0.1:9"}, "NATS_URL: the broker at nats://127.0.0.1:9 does not"),
        (["--home", "/dev/null/x"], {}, "STREAM_HOME: can't make the state folder /dev/null/x"),
    ],
)
def test_a_wrong_start_is_one_clear_line(stream, arguments, env, message):
    """Exit code 1, one line on stderr that names the option or variable, no screen."""
    done = stream("up", *arguments, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"stream: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_file_is_refused_at_start(tmp_path, stream):
    """./stream.yaml is found, and its fault is told with its line."""
    (tmp_path / "stream.yaml").write_text("tiers:\n  - name: Local\n")
    done = stream("up")
    assert done.returncode == 1
    assert "stream.yaml:2: tiers.0.name" in done.stderr


def test_models_are_listed_by_the_engine_itself(tmp_path, stream_process):
    """`stream models list` is the engine's own command, with its output and exit code."""
    env = {"HF_HUB_CACHE": str(tmp_path)}
    done = stream_process("models", "list", "--home", tmp_path, env=env)
    assert done.returncode == 0
    assert "stream-demo" in done.stdout


def test_models_pull_hands_on_arguments_and_exit_code(tmp_path, stream_process):
    """An option that the engine does not know is refused by the engine."""
    done = stream_process("models", "pull", "--no-such-option", "--home", tmp_path)
    assert done.returncode != 0
    assert "stream_engine" in done.stderr


def test_status_of_nothing(tmp_path, stream):
    """Nothing runs: exit code 1, and the folder that was looked at."""
    done = stream("status", "--home", tmp_path)
    assert (done.returncode, done.stdout) == (1, f"nothing runs under {tmp_path}\n")
