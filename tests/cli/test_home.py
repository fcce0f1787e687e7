"""The state folder: what is made, who can read it, who holds it."""

import datetime
import stat
import subprocess
import sys

import pytest

from stream_cli.home import NATS_USERS, TLS_NAMES, certify, fill, locked, open_home, rotate_logs, write_private
from stream_core import tickets
from stream_core.errors import ConfigError

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_secret_is_readable_by_its_owner_only(tmp_path):
    """Folders have mode 0700 and files 0600, also where a folder was there before with more."""
    (tmp_path / "home" / "secrets").mkdir(parents=True, mode=0o755)
    home = open_home(tmp_path / "home")
    fill(home)
    certify(home, NOW)
    for name in ("secrets", "tls", "nats", "logs", "run"):
        assert mode(home.root / name) == 0o700
    files = [path for folder in ("secrets", "tls") for path in (home.root / folder).iterdir()]
    assert {path.name for path in files} == {
        "engine.key",
        "batch.key",
        "lease.key",
        "ticket.key",
        "ticket.pub",
        "ca.pem",
        "looked",
        *(f"nats-{user}.password" for user in NATS_USERS),
        *(f"{name}.{suffix}" for name in TLS_NAMES for suffix in ("pem", "key")),
    }
    assert {mode(path) for path in files} == {0o600}


def test_secrets_are_made_once_and_differ(tmp_path):
    """A second start changes nothing; no two passwords are alike."""
    home = open_home(tmp_path)
    fill(home)
    before = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    fill(open_home(tmp_path))
    after = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert before == after
    assert len(set(after.values())) == len(after)


def test_the_ticket_keys_belong_together(tmp_path):
    """What hpc_dispatch signs with the private half, a relay verifies with the public one."""
    home = open_home(tmp_path)
    fill(home)
    ticket = tickets.issue(home.secret("ticket.key").read_text(), lease_id=b"l" * 16, now=1000, lifetime_s=60)
    assert tickets.verify(home.secret("ticket.pub").read_text(), ticket, now=1000) == b"l" * 16


def test_certificates_are_looked_into_once_a_week(tmp_path):
    """Within a week nothing is read; after it, when one is missing, or near their end they are made anew."""
    home = open_home(tmp_path)

    def made(days):
        before = (home.tls / "ca.pem").read_bytes() if (home.tls / "ca.pem").exists() else b""
        certify(home, NOW + datetime.timedelta(days=days))
        return (home.tls / "ca.pem").read_bytes() != before

    assert [made(days) for days in (0, 6, 8, 9, 800, 801)] == [True, False, False, False, True, False]
    (home.tls / "judge.key").unlink()
    assert made(802)
    (home.tls / "looked").write_text("yesterday")
    assert not made(803)


def test_half_a_key_pair_is_replaced(tmp_path):
    """A start that was killed between the two files heals at the next one."""
    home = open_home(tmp_path)
    fill(home)
    home.secret("ticket.key").unlink()
    fill(home)
    ticket = tickets.issue(home.secret("ticket.key").read_text(), lease_id=b"l" * 16, now=1000, lifetime_s=60)
    assert tickets.verify(home.secret("ticket.pub").read_text(), ticket, now=1000)


def test_a_folder_that_can_not_be_made_is_one_clear_error(tmp_path):
    """A file in the way: the error names the path and STREAM_HOME."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't make the state folder") as caught:
        open_home(tmp_path / "file" / "home")
    assert caught.value.param == "STREAM_HOME"


def test_a_second_holder_is_refused_and_told_who_holds(tmp_path):
    """The lock is the kernel's: another process is refused, and a killed one holds nothing."""
    home = open_home(tmp_path)
    code = (
        "import sys; from pathlib import Path; from stream_cli.home import *\n"
        "with locked(open_home(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid}"), locked(home):
            pass
        holder.kill()
        holder.wait()
        with locked(home):
            assert (tmp_path / "lock").exists()


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    """When the file can't be put in place, neither a temporary file nor half a file stays."""
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        write_private(tmp_path / "target", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_large_log_is_set_aside(tmp_path):
    """Above the limit a log begins anew, its past kept once; a small one goes on."""
    home = open_home(tmp_path)
    home.log("relay").write_bytes(b"x" * 11)
    home.log("judge").write_bytes(b"x" * 10)
    rotate_logs(home, ["relay", "judge", "gateway"], limit=10)
    assert sorted(path.name for path in home.logs.iterdir()) == ["judge.log", "relay.log.1"]
