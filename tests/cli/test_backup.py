"""`stream backup` and `stream restore`: of a running installation, of one at rest, into an empty one."""

import json
import shutil
import signal

import pytest

from stream_cli.home import Home
from stream_gateway.backup.manifest import read

pytestmark = pytest.mark.process
FEW = ("--only", "nats,gateway", "--port", "0")


def test_saved_lost_and_restored(tmp_path, stream_process, stream_up):
    """A key of the store is there again after broker, store and key file were lost; secrets were kept elsewhere."""
    home = Home(tmp_path / "home")
    at = ("--home", home.root)
    console = stream_up(*at, *FEW)
    console.read_until("ready in")
    made = stream_process("keys", "create", "kept", *at)
    assert made.returncode == 0, made.stderr
    saved = stream_process("backup", "running", *at)
    assert (saved.returncode, saved.stderr) == (0, "")
    assert "secrets" in saved.stdout
    refused = stream_process("restore", "running", *at)
    assert refused.returncode == 1
    assert "`stream up` runs already" in refused.stderr
    assert console.end(signal.SIGINT)[0] == 0
    again = stream_process("backup", "at rest", *at)
    assert again.returncode == 0, again.stderr
    names = {stream.name for stream in read(tmp_path / "at rest").streams}
    assert names == {stream.name for stream in read(tmp_path / "running").streams}
    assert {"stream-batch-records", "stream-batch-ledger"} <= names

    refused = stream_process("restore", "running", *at)
    assert refused.returncode == 1
    assert "--replace deletes them" in refused.stderr
    for folder in (home.nats, home.accounts):
        shutil.rmtree(folder)
    home.keys.unlink()
    restored = stream_process("restore", "running", *at)
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "the service key fits" in restored.stdout
    console = stream_up(*at, *FEW)
    console.read_until("ready in")
    listed = stream_process("keys", "list", *at)
    assert "kept" in listed.stdout
    assert json.loads(home.keys.read_text())["keys"]
    assert console.end(signal.SIGINT)[0] == 0


def test_without_the_right_key(tmp_path, stream_process, stream_up):
    """A folder that is no backup is told in one line."""
    done = stream_process("restore", tmp_path, "--home", tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr == f"stream: DIR: {tmp_path} is no backup: it has no manifest.json\n"
