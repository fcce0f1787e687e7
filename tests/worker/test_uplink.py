"""The worker's uplink on real sockets: TLS with one's own authority; several relays, their deaths and goodbyes."""

import asyncio
import re

import pytest
from wan.authority import Authority
from worker.scripted_relay import Seen, logged, running, scripted_relay, server_tls

from stream_core.errors import ConfigError
from stream_core.testing.broker import free_port
from stream_core.wire.frames import FrameType


def ws(relay) -> str:
    return f"ws://127.0.0.1:{relay.port}"


# TLS


async def test_own_authority_is_trusted(tmp_path):
    """wss:// to a relay whose certificate the job's CA file covers."""
    authority = Authority(tmp_path / "tls")
    tls = server_tls(*map(str, authority.issue("relay", "127.0.0.1")))
    async with (
        scripted_relay(tls=tls) as relay,
        running([f"wss://127.0.0.1:{relay.port}"], ca_file=str(authority.ca_file)) as worker,
    ):
        assert await worker.next()


@pytest.mark.parametrize(
    ("trusted", "address", "reason"),
    [
        (False, "127.0.0.1", "self-signed certificate|unable to get local issuer|unknown"),
        (True, "127.0.0.9", "IP address mismatch"),
    ],
    ids=["another authority", "another address"],
)
async def test_certificate_that_does_not_hold(tmp_path, log, trusted, address, reason):
    """An unknown authority or a wrong name: nothing is sent, the log says why in one line, and it tries again."""
    authority, other = Authority(tmp_path / "tls"), Authority(tmp_path / "other")
    tls = server_tls(*map(str, authority.issue("relay", address)))
    ca_file = str((authority if trusted else other).ca_file)
    async with scripted_relay(tls=tls) as relay, running([f"wss://127.0.0.1:{relay.port}"], ca_file=ca_file):
        lines = await logged(log, f"^relay 127.0.0.1:{relay.port}: SSLCertVerificationError: ", 2)
        assert all(re.search(reason, line) for line in lines)
        assert relay.events == []


async def test_plain_text_relay_gets_nothing(log):
    """A server that speaks no TLS where wss:// was said never sees a ticket."""
    async with scripted_relay() as relay, running([f"wss://127.0.0.1:{relay.port}"]):
        await logged(log, "SSL", 2)
        assert relay.events == []


async def test_wrong_ca_file_is_told_at_once(tmp_path):
    """A CA file that is not there, or is none, ends the worker with a line that names field and file."""
    (tmp_path / "none.pem").write_text("not a certificate")
    for name in ("missing.pem", "none.pem"):
        with pytest.raises(ConfigError, match=name) as raised:
            async with running(["wss://127.0.0.1:1"], ca_file=str(tmp_path / name)):
                pass
        assert raised.value.param == "ca_file"


# Several relays


async def test_first_relay_is_down(log):
    """When the first relay is down the second one is used, and the log names the first."""
    down = free_port()
    async with scripted_relay() as relay, running([f"ws://127.0.0.1:{down}", ws(relay)]) as worker:
        assert await worker.next()
        assert await logged(log, f"^relay 127.0.0.1:{down}: .*next attempt in")


async def test_workers_begin_at_different_relays():
    """Which relay is first is drawn, so that many workers spread over all of them."""
    events = []
    async with scripted_relay("a", events) as a, scripted_relay("b", events) as b:
        for jitter in (0.0, 0.9):
            async with running([ws(a), ws(b)], jitter=jitter) as worker:
                await worker.next()
    assert [one for one in events if one.what == "hello"] == [Seen("a", "hello"), Seen("b", "hello")]


async def test_relay_is_killed():
    """When its relay dies the worker takes the other one, and sends again what nobody acknowledged."""
    async with scripted_relay("a") as a, scripted_relay("b") as b, running([ws(a), ws(b)]) as worker:
        await worker.next()
        a.kill()
        assert await worker.next()
        await b.saw("hello")


async def test_only_relay_is_killed_and_comes_back(log):
    """With one relay the worker waits for it: the pauses grow up to the most, and it is found again on its port."""
    async with scripted_relay() as relay, running([ws(relay)], jitter=0.5) as worker:
        await worker.next()
        relay.kill()
        lines = await logged(log, "next attempt in", 5)
        pauses = [line.rpartition("in ")[2] for line in lines[:5]]
        assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]
        await relay.start()
        assert await worker.next()


async def test_goodbye_connects_elsewhere_first():
    """After GOAWAY the worker is with the other relay before it leaves the first, and sends nothing again."""
    events = []
    async with scripted_relay("a", events) as a, scripted_relay("b", events) as b, running([ws(a), ws(b)]) as worker:
        await worker.next()
        await a.say(FrameType.GOAWAY)
        assert await worker.next() is False
        await a.saw("closed")
        assert events == [Seen("a", "hello"), Seen("b", "hello"), Seen("a", "closed")]
        assert b.connection is not None


async def test_goodbye_with_nowhere_to_go():
    """After GOAWAY a worker stays where it is while no other relay takes it."""
    events = []
    async with scripted_relay("a", events) as a, scripted_relay("b", events) as b, running([ws(a), ws(b)]) as worker:
        await worker.next()
        b.kill()
        a.welcomes = False
        await a.say(FrameType.GOAWAY)
        await a.saw("hello", 2)
        assert Seen("a", "closed") not in events
        await b.start()
        a.kill()
        assert await worker.next()


async def test_goodbye_closes_as_the_protocol_says():
    """The worker leaves with a closing handshake: code 1000, and the relay's answer is waited for."""
    async with scripted_relay("a") as a, scripted_relay("b") as b, running([ws(a), ws(b)]) as worker:
        await worker.next()
        first = a.connection
        await a.say(FrameType.GOAWAY)
        await worker.next()
        await a.saw("closed")
        assert first is not None
        assert (first.close_code, first.protocol.close_rcvd_then_sent) == (1000, True)
        assert b.connection is not None


async def test_stopping_worker_says_goodbye():
    """A worker that ends closes its connection properly, so that what it wrote last arrives."""
    async with scripted_relay() as relay:
        async with running([ws(relay)]) as worker:
            await worker.next()
        await relay.saw("closed")
        assert relay.connection is not None
        assert relay.connection.close_code == 1000


async def test_welcome_again():
    """WELCOME said again means that frames may have been lost: all that is not acknowledged is to go out again."""
    async with scripted_relay() as relay, running([ws(relay)]) as worker:
        await worker.next()
        await relay.say(FrameType.WELCOME)
        assert await worker.next()
        assert relay.events == [Seen("relay", "hello")]


async def test_relay_that_never_welcomes(log, monkeypatch):
    """A relay that takes HELLO and says nothing is given up after the limit, for the next one."""
    monkeypatch.setattr("stream_worker.uplink._CONNECT_TIMEOUT_S", 0.1)
    async with scripted_relay("mute") as mute, scripted_relay("b") as relay:
        mute.welcomes = False
        async with running([ws(mute), ws(relay)]) as worker:
            assert await worker.next()
            assert await logged(log, "no WELCOME within 0.1 s")
            await mute.saw("closed")


async def test_server_that_accepts_and_is_silent(log, monkeypatch):
    """A port that takes connections and never speaks holds the worker no longer than the limit."""
    monkeypatch.setattr("stream_worker.uplink._CONNECT_TIMEOUT_S", 0.1)
    held = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, scripted_relay() as relay, running([f"wss://127.0.0.1:{port}", ws(relay)]) as worker:
        assert await worker.next()
        assert await logged(log, f"^relay 127.0.0.1:{port}: TimeoutError: no WELCOME within 0.1 s")
    for writer in held:
        writer.close()


async def test_relays_that_send_away_at_once_do_not_spin():
    """A relay that welcomes and closes again and again is counted, and tried with growing pauses."""
    async with scripted_relay() as relay:
        relay.leaves_at_once = True
        async with running([ws(relay)]) as worker:
            for _ in range(4):
                await worker.next()
    assert worker.faults.count("short_connection") >= 2
