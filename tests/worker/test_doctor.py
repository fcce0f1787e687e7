"""`stream-worker doctor`: what it finds with a real relay, proxy and files; and that each fault has its fix."""

import os
import subprocess
import sys

import pytest
from wan.authority import Authority
from worker.connect_proxy import connect_proxy

from stream_core import tickets
from stream_core.testing import programs
from stream_core.testing.broker import free_port, run_broker
from stream_worker.findings import Finding, failed, report
from stream_worker.node_check import check_disk, check_gpus, check_model, check_vllm
from stream_worker.relay_check import Answer, _clock, check_relays


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Who signed the relay's certificate."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def relay(authority, tmp_path_factory):
    """A real relay that speaks wss://."""
    public = tmp_path_factory.mktemp("relay") / "ticket.pub"
    public.write_text(tickets.new_signing_key()[1])
    certificate, key = authority.issue("relay", "127.0.0.1")
    with run_broker() as broker:
        env = {
            "STREAM_RELAY__PORT": str(free_port()),
            "STREAM_RELAY__NATS__URL": broker,
            "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(public),
            "STREAM_RELAY__TLS_CERTIFICATE": str(certificate),
            "STREAM_RELAY__TLS_KEY": str(key),
        }
        with programs.start("stream_relay", env=env) as program:
            yield f"wss://127.0.0.1:{program.ready['port']}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """What this machine's own environment says of proxies is not the test's."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def only(findings, what):
    """The one finding about something."""
    [found] = [finding for finding in findings if finding.what.startswith(what)]
    return found


@pytest.mark.process
async def test_a_relay_that_works(relay, authority):
    """It tells TLS, the certificate's end and that the clocks agree; the relay sees no ticket."""
    findings = await check_relays([relay], str(authority.ca_file))
    # The tests' certificates end tomorrow.
    assert only(findings, "relay").verdict == "note"
    assert "WebSocket in" in only(findings, "relay").told
    assert "TLSv1.3" in only(findings, "relay").told
    assert "two weeks" in only(findings, "relay").fix
    assert only(findings, "clock").verdict == "ok"


@pytest.mark.process
async def test_it_goes_through_the_proxy(relay, authority, monkeypatch):
    """As a worker does; with the proxy's password shown nowhere."""
    async with connect_proxy("site:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://site:secret@127.0.0.1:{proxy.port}")
        findings = await check_relays([relay], str(authority.ca_file))
        assert f"through proxy 127.0.0.1:{proxy.port}" in only(findings, "relay").what
        assert not failed(findings)
        monkeypatch.setenv("HTTPS_PROXY", f"http://site:wrong@127.0.0.1:{proxy.port}")
        findings = await check_relays([relay], str(authority.ca_file))
    assert only(findings, "relay").verdict == "FIX"
    assert "proxy" in only(findings, "relay").fix
    assert "secret" not in report(findings)
    assert "wrong" not in report(findings)


@pytest.mark.process
async def test_an_unknown_authority(relay):
    """Without the institution's bundle the certificate is refused, and the option that helps is named."""
    findings = await check_relays([relay], "")
    assert only(findings, "relay").verdict == "FIX"
    assert "--ca-file" in only(findings, "relay").fix


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://relay.example", "wss://"),
        ("wss://user:pass@relay.example", "no credentials"),
        ("wss://127.0.0.1:PORT", "Error"),
    ],
)
async def test_what_no_worker_could_use(url, words):
    """A URL that would send the ticket in clear, one with a password, a port where nobody listens."""
    findings = await check_relays([url.replace("PORT", str(free_port()))], "")
    assert only(findings, "relay").verdict == "FIX"
    assert words in only(findings, "relay").told
    assert "pass" not in report(findings).replace("pass a", "")


def test_a_wrong_clock():
    """A few seconds are worth a note; minutes are to be fixed, since gateways refuse such a worker."""
    for ahead, verdict in ((1.0, "ok"), (-20.0, "note"), (290.0, "FIX"), (-3600.0, "FIX")):
        [found] = _clock([Answer(0.1, None, "TLSv1.3", ahead)])
        assert found.verdict == verdict
    [found] = _clock([Answer(0.1, None, "TLSv1.3", None)])
    assert found.verdict == "note"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in that prints what a test wants: a GPU is not on every machine."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def say(text, code=0):
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
        script.chmod(0o755)

    return say


def test_gpus(nvidia_smi):
    """Their names, what is free, how many there are; a driver that does not answer is to be fixed."""
    nvidia_smi("NVIDIA A100, 81920, 1024, 570.1\\nNVIDIA A100, 81920, 0, 570.1\\n")
    [found], free = check_gpus(2)
    assert found.verdict == "ok"
    assert free == (81920 - 1024 + 81920) * 2**20
    [found], _ = check_gpus(4)
    assert (found.verdict, found.told[:6]) == ("FIX", "2 of 4")
    nvidia_smi("No devices were found", code=9)
    [found], free = check_gpus(1)
    assert (found.verdict, free) == ("FIX", 0)


def test_no_gpu(monkeypatch, tmp_path):
    """Without a driver's tool it is to be fixed, unless none was asked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_gpus(1)[0][0].verdict == "FIX"
    assert check_gpus(0)[0][0].verdict == "ok"


def test_models(tmp_path):
    """One that is whole and fits; one without weights, one too large, one that is not there."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert "weights" in check_model(folder, 0)[0].told
    (folder / "model-00001.safetensors").write_bytes(b"0" * 1000)
    assert check_model(folder, 0)[0].verdict == "ok"
    assert check_model(folder, 2000)[0].verdict == "ok"
    assert "free on the GPUs" in check_model(folder, 1100)[0].told
    (folder / "config.json").unlink()
    assert "config.json" in check_model(folder, 0)[0].told
    assert check_model(tmp_path / "elsewhere", 0)[0].verdict == "FIX"


def test_disk_and_engine(tmp_path, monkeypatch):
    """Space is counted where the folder will be; vLLM is looked for, not imported."""
    assert check_disk(tmp_path / "not" / "yet", 0.001).verdict == "ok"
    assert "GB free of" in check_disk(tmp_path, 10**9).told
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "stream-worker[vllm]" in check_vllm().fix


def test_the_report():
    """Each fix stands under its finding; the last line sums up."""
    text = report([Finding("ok", "a", "b"), Finding("FIX", "c", "d", "e")])
    assert text == "ok    a: b\nFIX   c: d\n      -> e\n1 to fix before a worker can run here\n"


@pytest.mark.process
def test_the_command(relay, authority, tmp_path):
    """As an admin runs it: lines for people, 0 when a worker can run, 1 when not."""
    command = [sys.executable, "-m", "stream_worker", "doctor", "--gpus", "0", "--no-vllm", "--disk-gb", "0.01"]
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    good = [*command, "--relay", relay, "--ca-file", str(authority.ca_file)]
    told = subprocess.run(good, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.endswith("a worker can run here\n")
    told = subprocess.run([*good, "--model", str(tmp_path)], env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "config.json" in told.stdout
