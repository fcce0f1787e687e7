"""The bucket on a real broker: compare-and-set, time to live, and what a broker can try with the records."""

import asyncio
import contextlib
import time
from collections import Counter

import msgspec
import nats
import pytest
from hpc_dispatch.test_records import KEY, RECORD
from nats.js.errors import NotFoundError

from stream_core.errors import ConfigError
from stream_core.testing.broker import Broker
from stream_hpc_dispatch.bucket import Bucket, ConflictError, NoJetStreamError
from stream_hpc_dispatch.leadership import KEY as LEADER
from stream_hpc_dispatch.leadership import DeposedError, Leadership
from stream_hpc_dispatch.vault import JOURNAL, Vault

pytestmark = pytest.mark.process

LASTING = msgspec.structs.replace(RECORD, expires=time.time() + 3600, counter=0)
NAME = LASTING.lease.hex()


@pytest.fixture
async def client(broker):
    connected = await nats.connect(broker)
    yield connected
    await connected.close()


@pytest.fixture
async def bucket(client, request):
    return await Bucket.open(client, f"test-{abs(hash(request.node.name))}", replicas=1)


@pytest.fixture
def faults():
    return Counter()


@pytest.fixture
def vault(bucket, faults, tmp_path):
    """Opens the vault as a run of the program does; what it says lands in `faults`."""

    @contextlib.asynccontextmanager
    async def run(folder=tmp_path, key=KEY):
        opened = Vault(
            bucket,
            key,
            lambda kind, _: faults.update([kind]),
            clock=time.time,
            counters=folder / "counters.json",
        )
        found = await opened.load()
        writing = asyncio.create_task(opened.run())
        try:
            yield opened, found
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    return run


async def written(vault, *records):
    for record in records:
        vault.keep(record)
        assert await vault.settled(within_s=5)


async def test_compare_and_set(bucket):
    """A write or removal at another revision is refused, whoever wrote; a removed key is gone for readers."""
    first = await bucket.write("a", b"1", revision=0, ttl_s=60)
    with pytest.raises(ConflictError):
        await bucket.write("a", b"2", revision=0, ttl_s=60)
    second = await bucket.write("a", b"2", revision=first, ttl_s=60)
    with pytest.raises(ConflictError):
        await bucket.remove("a", revision=first)
    assert (await bucket.read("a")).value == b"2"
    assert await bucket.keys() == ["a"]
    await bucket.remove("a", revision=second)
    assert (await bucket.read("a")).value is None
    assert await bucket.read("b") is None


async def test_a_lease_that_is_over_disappears(bucket, client):
    """The broker forgets a record by itself when its time to live is over."""
    await bucket.write("short", b"1", revision=0, ttl_s=1)
    async with asyncio.timeout(60):
        while await bucket.read("short") is not None:  # noqa: ASYNC110  (see below)
            await asyncio.sleep(0.1)  # the time itself is the deed
    assert await bucket.keys() == []


async def test_kept_read_back_and_forgotten(vault, bucket, faults):
    """What was kept is there for the next run, with its newest content; what was forgotten is not."""
    async with vault() as (first, found):
        assert found.records == []
        await written(first, LASTING, msgspec.structs.replace(LASTING, last_sequence=99))
    async with vault() as (second, found):
        assert [(record.last_sequence, record.counter) for record in found.records] == [(99, 2)]
        second.forget(LASTING.lease)
        assert await second.settled(within_s=5)
    async with vault() as (_, found):
        assert found.records == []
    assert faults == {}


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lambda value: value[:-1], "forged_record"),
        (lambda value: value[:20], "malformed_record"),
        (lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:], "forged_record"),
        (lambda value: b"\x02" + value[1:], "malformed_record"),
        (lambda value: b"", "malformed_record"),
    ],
)
async def test_tampered_records_are_refused_and_counted(vault, bucket, faults, tamper, kind):
    """A record cut short, changed or of another version is not used, and counted by kind."""
    async with vault() as (first, _):
        await written(first, LASTING)
    entry = await bucket.read(NAME)
    await bucket.write(NAME, tamper(entry.value), revision=entry.revision, ttl_s=60)
    async with vault() as (_, found):
        assert (found.records, found.older) == ([], [])
    assert faults == {kind: 1}


async def test_a_record_in_another_place_or_of_another_key_is_refused(vault, bucket, faults, tmp_path):
    """A record copied to another lease's key is refused there; with another service key all are."""
    async with vault() as (first, _):
        await written(first, LASTING)
    await bucket.write("00" * 16, (await bucket.read(NAME)).value, revision=0, ttl_s=60)
    async with vault() as (_, found):
        assert [record.lease for record in found.records] == [LASTING.lease]
    assert faults == {"forged_record": 1}
    async with vault(key=b"o" * 32) as (_, found):
        assert found.records == []


async def test_an_older_copy_is_noticed_at_the_next_start(vault, bucket, faults, tmp_path):
    """An old copy put back while nobody runs is refused where the counters are; elsewhere it can't be told."""
    async with vault() as (first, _):
        await written(first, LASTING)
        old = await bucket.read(NAME)
        await written(first, msgspec.structs.replace(LASTING, last_sequence=500))
        revision = (await bucket.read(NAME)).revision
    await bucket.write(NAME, old.value, revision=revision, ttl_s=60)
    async with vault() as (_, found):
        assert (found.records, [record.counter for record in found.older]) == ([], [1])
    assert faults == {"replayed_record": 1}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with vault(elsewhere) as (_, found):
        assert [record.counter for record in found.records] == [1]


async def test_an_older_copy_is_noticed_and_written_over_while_running(vault, bucket, faults):
    """Under a running program an old copy, or noise, makes the next write conflict: it is counted and written over."""
    async with vault() as (first, _):
        await written(first, LASTING)
        old = await bucket.read(NAME)
        await written(first, LASTING)
        revision = await bucket.write(NAME, old.value, revision=(await bucket.read(NAME)).revision, ttl_s=60)
        await written(first, msgspec.structs.replace(LASTING, last_sequence=500))
        assert (await bucket.read(NAME)).revision > revision
        assert faults == {"replayed_record": 1}
        await bucket.write(NAME, b"noise", revision=(await bucket.read(NAME)).revision, ttl_s=60)
        await written(first, LASTING)
        assert faults == {"replayed_record": 1, "malformed_record": 1}
    async with vault() as (_, found):
        assert [record.counter for record in found.records] == [4]


async def test_a_broker_that_is_away_gets_the_newest_later(faults, tmp_path):
    """While the broker is away writes wait; when it is back the newest version is there."""
    node = Broker(tmp_path)
    node.start()
    client = await nats.connect(node.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=quiet)
    try:
        bucket = await Bucket.open(client, "leases", replicas=1)
        vault = Vault(
            bucket, KEY, lambda kind, _: faults.update([kind]), clock=time.time, counters=tmp_path / "counters"
        )
        writing = asyncio.create_task(vault.run())
        await written(vault, LASTING)
        node.kill()
        vault.keep(msgspec.structs.replace(LASTING, last_sequence=1))
        assert not await vault.settled(within_s=0.3)
        vault.keep(msgspec.structs.replace(LASTING, last_sequence=2))
        node.start()
        assert await vault.settled(within_s=20)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        again = await Vault(bucket, KEY, lambda *_: None, clock=time.time, counters=tmp_path / "none").load()
        assert [record.last_sequence for record in again.records] == [2]
    finally:
        await client.close()
        node.stop()


async def quiet(_error):
    """The client's own complaints while its broker is away."""


async def test_a_broker_without_jetstream(tmp_path):
    """JetStream switched off is told apart from trouble, at once."""
    (tmp_path / "nats.conf").write_text("")
    node = Broker(tmp_path)
    (tmp_path / "nats.conf").write_text("")
    node.start()
    client = await nats.connect(node.url)
    try:
        async with asyncio.timeout(60):
            with pytest.raises(NoJetStreamError):
                await Bucket.open(client, "leases", replicas=1)
    finally:
        await client.close()
        node.stop()


async def test_more_replicas_than_nodes(client):
    """A broker with too few nodes is a wrong setting, named."""
    with pytest.raises(ConfigError) as refused:
        await Bucket.open(client, "many", replicas=3)
    assert refused.value.param == "lease_replicas"
    with pytest.raises(NotFoundError):
        await client.jetstream().stream_info("KV_many")


async def elected(bucket, tmp_path, name):
    """A replica that leads, with what it writes: a vault that nobody else's words overrule but a new leader's."""
    leadership = Leadership(bucket, f"{name}:1", 0.5, lambda *_: None)
    electing = asyncio.create_task(leadership.run())
    async with asyncio.timeout(60):
        await leadership.acting()
    vault = Vault(
        bucket,
        KEY,
        lambda *_: None,
        clock=time.time,
        counters=tmp_path / f"{name}.json",
        verify=leadership.verify,
    )
    found = await vault.load()
    return leadership, electing, vault, found, asyncio.create_task(vault.run())


async def test_a_deposed_leader_writes_nothing_over(bucket, tmp_path):
    """Neither a lease, nor one that the new leader removed, nor the journal: it learns that it was deposed."""
    first, electing, old, _, writing = await elected(bucket, tmp_path, "first")
    old.keep_journal(b"the first one's")
    await written(old, LASTING)
    electing.cancel()  # it stands still, and a little later another one leads
    second, beating, new, found, rewriting = await elected(bucket, tmp_path, "second")
    assert found.journal == b"the first one's"
    assert [record.lease for record in found.records] == [LASTING.lease]
    assert not first.acts
    new.keep_journal(b"the second one's")
    new.forget(LASTING.lease)
    assert await new.settled(within_s=5)
    before = [(await bucket.read(key)).revision for key in (NAME, JOURNAL)]
    old.keep_journal(b"of no use")
    old.keep(LASTING)
    with pytest.raises(DeposedError):
        async with asyncio.timeout(60):
            await writing
    assert [(await bucket.read(key)).revision for key in (NAME, JOURNAL)] == before
    with pytest.raises(DeposedError):
        await first.acting()
    assert second.acts
    for task in (beating, rewriting):
        task.cancel()
    await asyncio.gather(electing, beating, rewriting, return_exceptions=True)
    await second.hand_over()
    assert b'"holder":""' in (await bucket.read(LEADER)).value
