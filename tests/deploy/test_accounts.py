"""The broker as the manifests configure it: three real nodes, and a leaf node outside; a key opens its own subjects."""

import asyncio
import contextlib
import ssl
import subprocess
import time

import pytest
from deploy.brokers import loopback_net, run_node, wait_healthy
from deploy.rendered import K8S

from stream_cli.cluster_secrets import Installation, make
from stream_core import bus, nkeys
from stream_core.errors import ConfigError
from stream_core.settings import NatsSettings
from stream_core.testing.broker import SERVER
from stream_core.wire import subjects
from stream_hpc_dispatch.bucket import Bucket

LEASE, GATEWAY = b"l" * 16, b"g" * 16
IN, OUT, FAN_IN = subjects.lease_in(LEASE), subjects.lease_out(LEASE), subjects.gateway_in(GATEWAY)
INSIDE = K8S / "overlays" / "relay-outside" / "nats.conf"
"""The base's configuration, and a port for leaf nodes."""
OUTSIDE = K8S / "overlays" / "relay-outside" / "outside" / "nats.conf"
BUS_NAMES = {"gateway": "gateway", "hpc-dispatch": "hpc_dispatch", "relay": "relay", "summarizer": "summarizer"}


class Brokers:
    """Three nodes inside and one outside."""

    def __init__(self, secrets, inside, outside):
        self.secrets, self.inside, self.outside = secrets, inside, outside

    def settings(self, user, *, node=0, outside=False):
        """How a service logs in, as its manifest has it."""
        folder = self.secrets / "outside" if outside else self.secrets
        return NatsSettings(
            url=f"tls://{self.outside.address if outside else self.inside[node].address}:4222",
            nkey_file=folder / user / "nats.seed",
            ca_file=folder / user / "ca.pem",
        )


@pytest.fixture(scope="module")
def brokers(tmp_path_factory):
    """Start them."""
    folder, net = tmp_path_factory.mktemp("brokers"), loopback_net()
    addresses = [f"{net}{number}" for number in (11, 12, 13)]
    hosts = {f"nats-{number}.nats-nodes": address for number, address in enumerate(addresses)}
    hosts["leaf.stream.example"] = addresses[1]
    installation = Installation(folder / "secrets", hosts={"nats": [*addresses, f"{net}21"]})
    make(installation, now=time.time())
    with contextlib.ExitStack() as stack:
        inside = [
            stack.enter_context(
                run_node(
                    folder / f"nats-{number}",
                    INSIDE,
                    installation.place("nats"),
                    name=f"nats-{number}",
                    address=address,
                    hosts=hosts,
                )
            )
            for number, address in enumerate(addresses)
        ]
        outside = stack.enter_context(
            run_node(
                folder / "leaf",
                OUTSIDE,
                installation.outside / "nats",
                name="leaf-0",
                address=f"{net}21",
                hosts=hosts,
            )
        )
        for node in (*inside, outside):
            wait_healthy(node)
        yield Brokers(installation.folder, inside, outside)


@contextlib.asynccontextmanager
async def connected(brokers, user, **where):
    """A service's own client."""
    client = await bus.connect(brokers.settings(user, **where), name=BUS_NAMES[user])
    try:
        yield client
    finally:
        await bus.close(client)


async def refused(brokers, user, way, subject, *, expected, **where):
    """Whether the broker refuses one operation; one that is expected is waited for."""
    said = asyncio.Event()

    async def note(error):
        assert "permissions violation" in str(error).lower()
        said.set()

    async with connected(brokers, user, **where) as client:
        client._error_cb = note
        if way == "publish":
            await client.publish(subject, b"x")
        else:
            await client.subscribe(subject)
        await client.flush()
        if expected:
            async with asyncio.timeout(60):
                await said.wait()
        return said.is_set()


async def arrives(brokers, sender, receiver, subject, **receives):
    """Whether what one service publishes reaches another, at another node: interest spreads, so it is said again."""
    got = asyncio.Event()

    async def take(_message):
        got.set()

    async with connected(brokers, receiver, **receives) as listening, connected(brokers, sender, node=0) as speaking:
        await listening.subscribe(subject, cb=take)
        await listening.flush()
        async with asyncio.timeout(60):
            while not got.is_set():
                await speaking.publish(subject, b"x")
                await speaking.flush()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(got.wait(), 0.1)
        return True


@pytest.mark.process
@pytest.mark.parametrize(
    ("user", "way", "subject", "allowed"),
    [
        ("gateway", "publish", IN, True),
        ("gateway", "subscribe", FAN_IN, True),
        ("gateway", "publish", "stream.batch.line.b.1", True),
        ("gateway", "publish", FAN_IN, False),
        ("gateway", "publish", OUT, False),
        ("gateway", "subscribe", IN, False),
        ("gateway", "subscribe", OUT, False),
        ("gateway", "subscribe", ">", False),
        ("gateway", "publish", "$JS.API.STREAM.MSG.GET.KV_stream-leases", False),
        ("gateway", "publish", "$JS.API.STREAM.DELETE.stream-batch-files", False),
        ("relay", "publish", FAN_IN, True),
        ("relay", "publish", OUT, True),
        ("relay", "subscribe", IN, True),
        ("relay", "publish", IN, False),
        ("relay", "subscribe", FAN_IN, False),
        ("relay", "subscribe", OUT, False),
        ("relay", "publish", "stream.batch.line.b.1", False),
        ("relay", "publish", "$JS.API.INFO", False),
        ("hpc-dispatch", "subscribe", subjects.ALL_LEASES_OUT, True),
        ("hpc-dispatch", "publish", IN, True),
        ("hpc-dispatch", "publish", FAN_IN, False),
        ("hpc-dispatch", "subscribe", subjects.ALL_GATEWAYS, False),
        ("hpc-dispatch", "publish", "$KV.stream-summaries.x", False),
        ("summarizer", "publish", "$KV.stream-summaries.x", True),
        ("summarizer", "publish", "$KV.stream-leases.x", False),
        ("summarizer", "publish", IN, False),
        ("summarizer", "subscribe", subjects.ALL_GATEWAYS, False),
        ("summarizer", "subscribe", "_INBOX.>", False),
    ],
)
async def test_a_key_opens_its_own_subjects_only(brokers, user, way, subject, allowed):
    """Each service with its own nkey, over TLS, does its work and nothing else."""
    assert await refused(brokers, user, way, subject, node=2, expected=not allowed) is not allowed


@pytest.mark.process
@pytest.mark.parametrize(
    ("sender", "receiver", "subject"),
    [
        ("gateway", "relay", IN),
        ("hpc-dispatch", "relay", IN),
        ("relay", "gateway", FAN_IN),
        ("relay", "hpc-dispatch", OUT),
    ],
)
async def test_frames_cross_accounts_and_nodes(brokers, sender, receiver, subject):
    """What the road needs passes from account to account, also from one node to another."""
    assert await arrives(brokers, sender, receiver, subject, node=2)


@pytest.mark.process
async def test_accounts_see_nothing_of_each_other(brokers):
    """A bucket that hpc_dispatch makes, with three copies, is its own: under the same name the summarizer has none."""
    async with connected(brokers, "hpc-dispatch") as client:
        bucket = await Bucket.open(client, "stream-leases", replicas=3)
        revision = await bucket.write("a", b"1", revision=0, ttl_s=60)
        assert (await bucket.read("a")).revision == revision
    accounts = brokers.inside[0].ask("/accountz?acc=SUMMARIZER").decode()
    assert '"jetstream_enabled": true' in accounts
    assert "KV_stream-leases" not in brokers.inside[0].ask("/jsz?acc=SUMMARIZER&streams=true").decode()


@pytest.mark.process
async def test_relays_outside_work_through_their_leaf_node(brokers):
    """A relay at the leaf node hears the gateway inside, and nothing else is to be had there."""
    assert await arrives(brokers, "gateway", "relay", IN, outside=True)
    assert await refused(brokers, "relay", "subscribe", FAN_IN, outside=True, expected=True)
    got = asyncio.Event()

    async def take(_message):
        got.set()

    async with connected(brokers, "gateway") as inside, connected(brokers, "relay", outside=True) as relay:
        await inside.subscribe(FAN_IN, cb=take)
        await inside.flush()
        async with asyncio.timeout(60):
            while not got.is_set():
                await relay.publish(FAN_IN, b"x")
                await relay.flush()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(got.wait(), 0.1)


@pytest.mark.process
async def test_strangers_are_refused(brokers, tmp_path, monkeypatch):
    """Neither another key, nor no key, nor an authority of somebody else's; the error says which setting."""
    monkeypatch.setattr(bus, "_FIRST_CONNECT_S", 1.5)
    stranger = tmp_path / "seed"
    stranger.write_text(nkeys.new_seed())
    good = brokers.settings("gateway")
    for wrong in (
        good.model_copy(update={"nkey_file": stranger}),
        good.model_copy(update={"nkey_file": None}),
        good.model_copy(update={"ca_file": brokers.secrets / "outside" / "relay" / "ca.pem"}),
    ):
        with pytest.raises(ConfigError) as caught:
            await bus.connect(wrong, name="gateway")
        assert caught.value.param == "nats.url"


@pytest.mark.process
async def test_a_service_is_no_node_of_the_broker(brokers):
    """A service's certificate does not open the port of routes, which is trusted with every account."""
    context = ssl.create_default_context(cafile=brokers.secrets / "nats" / "route-ca.pem")
    context.load_cert_chain(brokers.secrets / "gateway" / "tls.crt", brokers.secrets / "gateway" / "tls.key")
    reader, writer = await asyncio.open_connection(brokers.inside[0].address, 6222)
    await reader.readline()
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await writer.start_tls(context)
        await reader.readexactly(1)
    writer.close()


@pytest.mark.parametrize("path", sorted(K8S.rglob("nats.conf")), ids=lambda path: path.parent.name)
def test_the_files_are_valid(path, tmp_path):
    """nats-server itself reads every configuration and finds no fault."""
    installation = Installation(tmp_path / "secrets")
    make(installation, now=time.time())
    folder = installation.outside if path.parent.name == "outside" else installation.folder
    text = path.read_text().replace('"/etc/nats/', f'"{folder / "nats"}/').replace('"/data"', f'"{tmp_path}"')
    mapped = folder / "nats" / "nats.conf"
    mapped.write_text(text)
    told = subprocess.run([SERVER, "-t", "-c", mapped], env={"POD_NAME": "nats-0"}, capture_output=True, check=False)
    assert told.returncode == 0, told.stderr.decode()
