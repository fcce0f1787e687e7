"""What every program shares: keys, certificates, ids, subjects, health, life and logs."""

import asyncio
import datetime
import json
import logging
import ssl
import stat

import aiohttp
import pytest
from cryptography import x509

from stream_core import api_keys, ids
from stream_core.certificates import ensure_certificates
from stream_core.errors import ConfigError, FrameError
from stream_core.health import serve_health
from stream_core.lifecycle import announce_ready
from stream_core.telemetry import Once, configure_logs
from stream_core.wire import subjects

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def test_key_is_shown_once_and_kept_hashed():
    """What is kept of a key does not hold the key, and reads back."""
    key, record = api_keys.new_key("ada", now=0, tiers=["local"], privacy="internal")
    data = api_keys.dump_keys(api_keys.KeyFile([record]))
    assert key.encode() not in data
    assert api_keys.load_keys(data, source="keys.json").keys == [record]
    assert api_keys.digest(key) == record.sha256
    with pytest.raises(ConfigError, match=r"keys\.json"):
        api_keys.load_keys(b"{", source="keys.json")


def test_certificates_are_private_kept_and_renewed(tmp_path):
    """Keys are readable by their owner alone; valid ones are kept, expiring ones replaced."""
    folder = tmp_path / "tls"
    ensure_certificates(folder, ["one", "two"], now=NOW)
    first = (folder / "ca.pem").read_bytes()
    assert stat.S_IMODE((folder / "one.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "one.pem", folder / "one.key")
    ensure_certificates(folder, ["one", "two"], now=NOW + datetime.timedelta(days=100))
    assert (folder / "ca.pem").read_bytes() == first
    ensure_certificates(folder, ["one", "two"], now=NOW + datetime.timedelta(days=800))
    renewed = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    assert renewed.not_valid_after_utc > NOW + datetime.timedelta(days=900)


def test_ids_and_subjects_cannot_be_forged():
    """An id is 32 hex digits and nothing else, so that no subject can name another."""
    lease = ids.new_id()
    assert subjects.lease_of(subjects.lease_in(lease)) == subjects.lease_of(subjects.lease_out(lease)) == lease
    for forged in ("stream.v1.lease.*.in", "stream.v1.lease.>.in", "stream.v1.gw.x", f"stream.v1.lease.{'A' * 32}.in"):
        with pytest.raises(FrameError):
            subjects.lease_of(forged)


async def test_health():
    """`/livez` is 200 while the program answers; `/readyz` is 503 with the reason until it is ready."""
    reason: list[str | None] = ["the engine is starting"]
    async with serve_health("127.0.0.1", 0, lambda: reason[0]) as port, aiohttp.ClientSession() as session:

        async def probe(path: str) -> tuple[int, str]:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, (await response.text()).strip()

        assert await probe("/livez") == (200, "ok")
        assert await probe("/readyz") == (503, "the engine is starting")
        reason[0] = None
        assert await probe("/readyz") == (200, "ok")
        assert (await probe("/else"))[0] == 404
        faults = Once(logging.getLogger("test"))
        faults.note("probed", "this test")
        assert 'stream_faults_total{kind="probed"} 1' in (await probe("/metrics"))[1].splitlines()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0" * 20_000)
        await writer.drain()
        writer.close()
        assert await probe("/livez") == (200, "ok")


def test_ready_file_is_whole_or_absent(tmp_path):
    """The ready file appears at once with its facts and this process's id."""
    announce_ready(tmp_path / "ready.json", port=5)
    assert json.loads((tmp_path / "ready.json").read_text())["port"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


def test_faults_are_logged_once_per_kind_and_counted(caplog):
    """A flood of one fault is one line and a counter."""
    faults = Once(logging.getLogger("test"))
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            faults.note("malformed", "a frame")
        faults.note("replay", "again")
    assert faults.counts == {"malformed": 1000, "replay": 1}
    assert len(caplog.records) == 2


def test_logs_are_json_lines(capsys):
    """Each log line is one JSON object with its extra fields."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logs("example")
        logging.getLogger("x").info("hello %s", "you", extra={"request_id": "r"})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    line = json.loads(capsys.readouterr().err)
    assert (line["msg"], line["request_id"], line["service"]) == ("hello you", "r", "example")
