"""The one screen of `stream up`."""

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from stream_cli.effective import EngineFacts, LocalServer, Machine, complete
from stream_cli.home import Home
from stream_cli.screen import curl_line, python_line, show
from stream_cli.up import Result
from stream_core.deployment import Deployment

DEMO = EngineFacts(model="stream-demo", context=8192, demo=True, source="demo")
BASE = "http://127.0.0.1:8080/v1"
KEY = "sk-stream-" + "k" * 43


def screen(*, server=None, cloud=False, variable="", base_url=BASE, engine=DEMO, exposed=False):
    environ = {"OPENAI_API_KEY": "sk-abc"} if cloud else {}
    machine = Machine("/venv/python", environ, "http://127.0.0.1:1/v1", Path("/key"), cloud, server, engine)
    result = Result(
        home=Home(Path("/state")),
        base_url=base_url,
        key=KEY,
        deployment=complete(Deployment(), machine),
        local=f"{server.title}, found at {server.base_url}" if server else "embedded engine",
        started=("nats", "judge"),
        cloud_variable=variable,
        exposed=exposed,
    )
    out = io.StringIO()
    show(Console(file=out, highlight=False, width=80), result)
    return out.getvalue()


def test_everything_a_newcomer_needs_is_there():
    """Base URL, key, tiers with their models, calls to paste, logs; plain text and 80 columns."""
    text = screen()
    for part in (BASE, KEY, "local   stream-demo", "hpc     stream-demo", "curl -s ", "OpenAI(", "/state/logs"):
        assert part in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80 + len(sys.executable)
    assert len(text.splitlines()) <= 40


def test_demo_models_are_marked_plainly():
    """Both tiers with a demo model say that its answers are not to be believed; a real model does not."""
    assert screen().count("demo model: answers are not to be believed") == 2
    real = EngineFacts(model="small", context=4096, demo=False, source="models_dir")
    assert "not to be believed" not in screen(engine=real)


def test_a_found_server_is_named_with_its_models():
    """The local tier says which server it is and lists its first models."""
    server = LocalServer("Ollama", "http://127.0.0.1:11434/v1", tuple((f"m{i}", 4096) for i in range(5)))
    text = screen(server=server)
    assert "local   m0, m1, m2 and 2 more" in text
    assert "Ollama, found at http://127.0.0.1:11434/v1" in text


def test_a_key_in_the_environment_is_shown_with_the_one_option():
    """The cloud stays off, and the screen says which variable was seen and what turns it on."""
    text = screen(variable="OPENAI_API_KEY")
    assert "cloud   off: nothing is sent there. OPENAI_API_KEY is set" in text
    assert "`stream up --cloud`" in text
    assert "--cloud" not in screen()


def test_a_cloud_tier_is_shown_with_its_address():
    """With --cloud the tier stands in the list."""
    text = screen(cloud=True)
    assert "cloud   gpt-5-mini" in text
    assert "https://api.openai.com/v1" in text


def test_a_gateway_that_others_can_reach_is_warned_about():
    """--host 0.0.0.0: keys travel in plain HTTP, and the screen says so; on loopback it does not."""
    assert "keys and questions can be\n  read on the way" in screen(exposed=True)
    assert "read on the way" not in screen()


def test_without_a_gateway_there_is_nothing_to_paste():
    """--only nats,judge shows what was started."""
    text = screen(base_url="")
    assert "Started   nats, judge" in text
    assert "curl" not in text
    assert KEY not in text


@pytest.mark.parametrize("folder", ["/state", '/a folder/it\'s "here"'])
def test_the_lines_survive_a_shell(folder, tmp_path):
    """A POSIX shell hands curl and Python exactly what is meant, for any path of the state folder."""
    key_file = tmp_path / folder.strip("/").replace("/", "-")
    key_file.write_text("the-key\n")
    arguments = tmp_path / "arguments"
    fake = tmp_path / "curl"
    fake.write_text(f'#!/bin/sh\nfor a in "$@"; do printf "%s\\0" "$a"; done >{shlex.quote(str(arguments))}\n')
    fake.chmod(0o700)
    subprocess.run(
        ["/bin/sh", "-c", curl_line(BASE, str(key_file))], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=True
    )
    given = arguments.read_text().split("\0")[:-1]
    assert given[:4] == ["-s", f"{BASE}/chat/completions", "-H", "Authorization: Bearer the-key"]
    assert json.loads(given[-1])["model"] == "auto"
    program, option, code = shlex.split(python_line(BASE, str(key_file), "/a venv/python"))
    assert (program, option) == ("/a venv/python", "-c")
    compile(code, "pasted", "exec")
    assert json.dumps(str(key_file), ensure_ascii=False) in code
