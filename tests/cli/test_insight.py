"""`stream doctor` and `stream top` on a real `stream up`, and what the doctor finds where something is wrong."""

import datetime
import json
import urllib.request

import pytest
from e2e.house import run_up, screen

from stream_cli.broker_rights import Broker, NotThere, faults_of
from stream_cli.home import NATS_USERS, certify, fill, open_home
from stream_core.testing import broker

pytestmark = pytest.mark.process


def findings(stream, home, *arguments):
    """What the doctor says, by area and thing, and its exit code."""
    done = stream("doctor", "--json", "--home", home, *arguments)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {(each["area"], each["what"]): each for each in told}, done.returncode


def test_all_is_well(tmp_path, stream):
    """Everything that runs is found ready, the broker's users may only what they should, and top tells of a request."""
    home = tmp_path / "home"
    with run_up(home, "--port", "0", "--model", "demo") as process:
        screen(process)
        found, code = findings(stream, home)
        assert [each for each in found.values() if not each["ok"]] == []
        assert code == 0
        assert {area for area, _ in found} == {
            "state",
            "config",
            "certificates",
            "programs",
            "broker",
            "clocks",
            "tiers",
        }
        for name in ("gateway", "judge", "summarizer", "relay", "hpc_dispatch"):
            assert found["programs", name]["words"] == "ready"
        for user in NATS_USERS:
            assert found["broker", user]["words"] == "its own subjects and no others"
        text = stream("doctor", "--home", home).stdout
        assert text.splitlines()[0].split()[:3] == ["ok", "state", "secrets"]
        port, key = json.loads((home / "run/gateway.json").read_text())["port"], (home / "api-key").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps({"model": "hpc", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  (our own gateway)
            assert answer.status == 200
        now = json.loads(stream("top", "--once", "--json", "--home", home).stdout)
        assert now["away"] == []
        assert now["relays"] == 1
        (tier,) = [tier for tier in now["tiers"] if tier["name"] == "hpc"]
        assert (tier["up"], tier["failed"]) == (True, 0)
        assert tier["requests"] >= 1
        assert tier["first_token_p99_s"] > 0
        assert [pool["pilots"] for pool in now["pools"]] == [{"ready": 1}]
        shown = stream("top", "--once", "--home", home).stdout
        assert "1 workers connected" in shown
        assert "1 ready" in shown


def test_what_is_wrong_is_said_with_what_to_do(tmp_path, stream):
    """Nothing runs, a secret is open, a certificate is broken, the configuration has a fault in a line."""
    home = open_home(tmp_path / "home")
    fill(home)
    certify(home, datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=820))
    home.secret("engine.key").chmod(0o644)
    (home.tls / "judge.pem").write_text("none")
    home.deployment.write_text("tiers:\n  - name: local\n    nonsense: 1\n")
    found, code = findings(stream, home.root)
    assert code == 1
    wrong = {key: each["words"] for key, each in found.items() if not each["ok"]}
    assert wrong["state", "secrets"] == "others can read engine.key: chmod go-rwx"
    assert "remove " in wrong["certificates", "judge.pem"]
    assert wrong["certificates", "gateway.pem"].startswith("valid for 4 more days: start `stream up` again")
    assert "stream.yaml:3: tiers.0.nonsense" in wrong["config", "stream.yaml"]
    assert "start it" in wrong["programs", "stream up"]
    shown = stream("doctor", "--home", home.root).stdout
    assert "WRONG  certificates  judge.pem" in shown
    missing, code = findings(stream, tmp_path / "nowhere")
    assert code == 1
    assert "`stream up` makes it" in missing["state", str(tmp_path / "nowhere")]["words"]
    done = stream("top", "--once", "--home", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nothing runs under" in done.stderr


def test_a_broker_that_tells_too_much(tmp_path):
    """A user that may hear others' subjects, one that may not hear its own, and one that is not let in at all."""
    users = [
        {"user": "relay", "password": "a", "permissions": {"subscribe": {"allow": ["stream.>"]}}},
        {"user": "gateway", "password": "b", "permissions": {"subscribe": {"allow": ["_INBOX.gateway.>"]}}},
    ]
    with broker.run_broker(f"authorization: {json.dumps({'users': users})}") as url:
        port = int(url.rpartition(":")[2])
        with Broker("127.0.0.1", port, "relay", "a") as relay:
            assert faults_of("relay", relay) == ["may hear stream.v1.gw.*", "may hear stream.v1.lease.*.out"]
        with Broker("127.0.0.1", port, "gateway", "b") as gateway:
            assert faults_of("gateway", gateway) == ["may not hear stream.v1.gw.*"]
        with pytest.raises(NotThere, match="Authorization Violation"):
            Broker("127.0.0.1", port, "gateway", "wrong")
