"""The uplink through an HTTP CONNECT proxy on real sockets, as HTTPS_PROXY says; credentials are never logged."""

import asyncio
import base64
import contextlib
import dataclasses

import pytest
from gateway_hpc import lane
from wan.authority import Authority
from worker.connect_proxy import connect_proxy
from worker.scripted_relay import LIMIT_S, logged, running, scripted_relay, server_tls

from stream_core import tickets
from stream_core.testing import programs
from stream_core.testing.broker import free_port, run_broker
from stream_core.testing.engine import scripted_engine

CREDENTIALS = "site user:p@ss/word"
IN_URL = "site%20user:p%40ss%2Fword"
SECRETS = ("p@ss/word", "p%40ss%2Fword", base64.b64encode(CREDENTIALS.encode()).decode())


@pytest.fixture
def authority(tmp_path):
    """Its CA file is what the job names."""
    return Authority(tmp_path / "tls")


@pytest.fixture
async def relay(authority):
    """A relay that speaks wss://."""
    async with scripted_relay(tls=server_tls(*map(str, authority.issue("relay", "127.0.0.1")))) as relay:
        yield relay


@contextlib.asynccontextmanager
async def worker_to(relay, authority):
    """An uplink to that relay."""
    async with running([f"wss://127.0.0.1:{relay.port}"], ca_file=str(authority.ca_file)) as worker:
        yield worker


@pytest.mark.parametrize("form", ["http://{}", "{}"], ids=["a URL", "host and port"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_goes_through_the_proxy(relay, authority, monkeypatch, log, variable, form):
    """The proxy is asked for host and port, and sees nothing but TLS: no lease, no ticket, no path."""
    async with connect_proxy() as proxy:
        monkeypatch.setenv(variable, form.format(f"127.0.0.1:{proxy.port}"))
        async with worker_to(relay, authority) as worker:
            assert await worker.next()
            await logged(log, f"^connected to relay 127.0.0.1:{relay.port} through proxy 127.0.0.1:{proxy.port}$")
        assert proxy.requests == [f"CONNECT 127.0.0.1:{relay.port} HTTP/1.1"]
        assert proxy.passed.startswith(b"\x16\x03")
        assert not any(word in proxy.passed for word in (b"ticket", b"/v1/worker", b"Upgrade", b"HTTP"))


@pytest.mark.parametrize("bypass", ["127.0.0.1", "*", "elsewhere.example, 127.0.0.1", "127.0.0.1:{port}"])
async def test_no_proxy_is_honoured(relay, authority, monkeypatch, bypass):
    """A relay that NO_PROXY names is reached directly."""
    async with connect_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", bypass.format(port=relay.port))
        async with worker_to(relay, authority) as worker:
            assert await worker.next()
        assert proxy.requests == []


async def test_no_proxy_of_others(relay, authority, monkeypatch):
    """NO_PROXY for other hosts, or for another port, changes nothing."""
    async with connect_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "elsewhere.example,127.0.0.1:1")
        async with worker_to(relay, authority) as worker:
            assert await worker.next()
        assert len(proxy.requests) == 1


async def test_plain_loopback_needs_no_proxy(monkeypatch):
    """ws:// to this very machine never goes through a proxy: it would carry the ticket in the clear."""
    async with connect_proxy() as proxy, scripted_relay() as relay:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with running([f"ws://127.0.0.1:{relay.port}"]) as worker:
            assert await worker.next()
        assert proxy.requests == []


async def test_credentials_work_and_are_not_logged(relay, authority, monkeypatch, log):
    """A proxy that wants Basic credentials gets those of its URL; no log line, down to DEBUG, holds them."""
    async with connect_proxy(CREDENTIALS) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@127.0.0.1:{proxy.port}")
        async with worker_to(relay, authority) as worker:
            assert await worker.next()
    assert f"through proxy 127.0.0.1:{proxy.port}" in log.text
    assert not any(secret in log.text for secret in SECRETS)


@pytest.mark.parametrize(("refuses", "status"), [(0, 407), (403, 403), (502, 502)])
async def test_refusing_proxy(relay, authority, monkeypatch, log, refuses, status):
    """A proxy that refuses is asked again with growing pauses; the log names status and proxy, never credentials."""
    async with connect_proxy("someone:else") as proxy:
        proxy.refuses = refuses
        monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@127.0.0.1:{proxy.port}")
        async with worker_to(relay, authority):
            lines = await logged(log, f"through proxy 127.0.0.1:{proxy.port}: .*{status}; next attempt", 4)
        assert len(proxy.requests) >= 4
    pauses = [float(line.rpartition("in ")[2].removesuffix(" s")) for line in lines[:4]]
    assert pauses == sorted(pauses)
    assert relay.events == []
    assert not any(secret in log.text for secret in SECRETS)


async def test_proxy_that_relents(relay, authority, monkeypatch):
    """A worker whose proxy refused gets through as soon as the proxy lets it."""
    async with connect_proxy() as proxy:
        proxy.refuses = 503
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with worker_to(relay, authority) as worker:
            async with asyncio.timeout(LIMIT_S):
                await proxy.asked.acquire()
            proxy.refuses = 0
            assert await worker.next()


async def test_proxy_is_down(relay, authority, monkeypatch, log):
    """A proxy that is not there is told and tried again, never gone around."""
    port = free_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@127.0.0.1:{port}")
    async with worker_to(relay, authority):
        await logged(log, f"through proxy 127.0.0.1:{port}: ConnectionRefusedError", 2)
    assert relay.events == []
    assert not any(secret in log.text for secret in SECRETS)


async def test_proxy_in_the_middle(authority, tmp_path, monkeypatch, log):
    """A proxy that breaks TLS open with a certificate of its own is refused: the ticket is not for it."""
    other = Authority(tmp_path / "proxy-tls")
    tls = server_tls(*map(str, other.issue("relay", "127.0.0.1")))
    async with scripted_relay("middle", tls=tls) as middle, connect_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with worker_to(middle, authority):
            await logged(log, "SSLCertVerificationError", 2)
        assert middle.events == []


def test_wrong_proxy_ends_the_worker_with_one_line(monkeypatch):
    """HTTPS_PROXY that is no URL: exit code 1, one line that names the variable and shows nothing of it."""
    job = dataclasses.replace(_parts("http://127.0.0.1:1"), relay_url="wss://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "ftp://someone:hunter2@proxy")
    with pytest.raises(RuntimeError, match="exit code 1") as raised, lane.worker(job):
        pass
    said = str(raised.value)
    assert "stream-worker: HTTPS_PROXY: " in said
    assert "hunter2" not in said
    assert "Traceback" not in said


@pytest.mark.process
async def test_an_answer_through_the_proxy(authority, tmp_path, monkeypatch):
    """Real worker, real relay over wss://, a proxy with credentials between them: the answer is the engine's own."""
    certificate, key = authority.issue("relay", "127.0.0.1")
    private_pem, public_pem = tickets.new_signing_key()
    (tmp_path / "ticket.pub").write_text(public_pem)
    async with connect_proxy(CREDENTIALS) as proxy:
        with contextlib.ExitStack() as stack:
            nats_url = stack.enter_context(run_broker())
            env = {
                "STREAM_RELAY__TLS_CERTIFICATE": str(certificate),
                "STREAM_RELAY__TLS_KEY": str(key),
                "STREAM_RELAY__NATS__URL": nats_url,
                "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(tmp_path / "ticket.pub"),
                "STREAM_RELAY__DRAIN_S": "0.2",
            }
            relay = await asyncio.to_thread(stack.enter_context, programs.start("stream_relay", env=env))
            engine_url = stack.enter_context(scripted_engine())
            relay_url = f"wss://127.0.0.1:{relay.ready['port']}"
            parts = lane.Parts(nats_url, engine_url, relay, relay_url, lane.Lease(), private_pem)
            monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@127.0.0.1:{proxy.port}")
            worker = await asyncio.to_thread(stack.enter_context, lane.worker(parts, ca_file=str(authority.ca_file)))
            target = await lane.announced(parts)
            async with lane.channel(nats_url) as gateway:
                text = await lane.read(await lane.ask(gateway, target, {"tokens": 20, "text": " {n}"}))
            assert text.count(b'"content":" ') == 20
            assert not any(secret in worker.log() for secret in SECRETS)
    assert proxy.requests == [f"CONNECT 127.0.0.1:{relay.ready['port']} HTTP/1.1"]
    assert b"content" not in proxy.passed


def _parts(engine_url: str) -> lane.Parts:
    private_pem, _ = tickets.new_signing_key()
    nobody = programs.Program(process=None, log_path=None)
    return lane.Parts("", engine_url, nobody, "", lane.Lease(), private_pem)
