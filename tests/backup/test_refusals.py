"""What a restore checks before it changes anything, and what the broker's own packs keep."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gateway_accounts.conftest import gateway_settings
from sqlalchemy import insert

from stream_core import bus
from stream_core.audit.entries import Chain
from stream_core.errors import ConfigError
from stream_core.files import write_private
from stream_core.settings import NatsSettings
from stream_core.testing.broker import Broker, run_broker
from stream_gateway.accounts import tables
from stream_gateway.accounts.opening import open_store
from stream_gateway.backup.loading import load
from stream_gateway.backup.manifest import MANIFEST, STORE, Unfit, read
from stream_gateway.backup.saving import save
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.standstill import MARK, stands_still, standstill
from stream_gateway.batches.streams import PREFIX, RECORDS, ensure
from stream_gateway.ledger.road import Road
from stream_gateway.settings import GatewaySettings

CHAIN = "c" * 32


def settings_of(folder: Path, url: str, key: str = "11") -> GatewaySettings:
    """Settings with a store in this folder and a service key."""
    folder.mkdir(exist_ok=True)
    write_private(folder / "batch.key", key.encode() * 32)
    nats = NatsSettings(url=url)
    return gateway_settings(folder, state_dir=folder / "state", nats=nats, batch_key_file=folder / "batch.key")


async def fill(settings: GatewaySettings) -> None:
    """Make a store with a group, and streams as gateways and hpc_dispatch have them."""
    database, _ = await open_store(settings)
    async with database.writing() as connection:
        await connection.execute(insert(tables.groups), [{"id": "group-1", "name": "physics", "created": 1}])
    await database.aclose()
    client = await bus.connect(settings.nats, name="gateway")
    journal = Journal(client)
    await ensure(journal.jetstream, 1, thumb_bytes=-1)
    await Road(journal, Sealer(b"\x11" * 32), alive_s=600).open_chain(Chain(CHAIN), 1.0)
    for number in range(5):
        await journal.put(f"{PREFIX}.record.file.a.{number}", b"x", stream=RECORDS, ttl_s=1000 + number)
    await journal.purge(f"{PREFIX}.record.file.a.1", stream=RECORDS)
    bucket = await journal.jetstream.create_key_value(bucket="stream-leases", history=1)
    await bucket.put("lease", b"old")
    await bucket.put("lease", b"sealed")
    await journal.jetstream.add_stream(name="theirs", subjects=["theirs.>"])
    await bus.close(client)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a running installation in `one`, and the backup of it in `kept`."""
    folder = tmp_path_factory.mktemp("taken")
    nats = folder / "nats"
    nats.mkdir()
    broker = Broker(nats)
    broker.start()
    try:
        settings = settings_of(folder / "one", broker.url)
        asyncio.run(fill(settings))
        asyncio.run(save(settings, folder / "kept"))
        (folder / "url").write_text(broker.url)
        yield folder
    finally:
        broker.stop()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """An empty broker's URL."""
    with run_broker() as url:
        yield url


async def test_streams_are_as_they_were(taken: Path, tmp_path: Path) -> None:
    """Sequences, times to live, buckets, limits of each stream; what told who ran then is gone; others stay out."""
    with run_broker() as url:
        await load(settings_of(tmp_path / "two", url), taken / "kept")
        journals = []
        for place in ((taken / "url").read_text(), url):
            client = await bus.connect(NatsSettings(url=place), name="gateway")
            journals.append(Journal(client))
        before, after = journals
        streams = {stream.name: stream for stream in read(taken / "kept").streams}
        assert (len(streams), next(iter(streams)), "theirs" in streams) == (7, RECORDS, False)
        for name, packed in streams.items():
            old, new = await before.jetstream.stream_info(name), await after.jetstream.stream_info(name)
            assert (new.state.last_seq, new.config.subjects) == (packed.state["last_seq"], old.config.subjects)
            assert (new.config.retention, new.config.max_msgs_per_subject, new.config.allow_msg_ttl) == (
                old.config.retention,
                old.config.max_msgs_per_subject,
                old.config.allow_msg_ttl,
            )
        for number in (0, 4):
            subject = f"{PREFIX}.record.file.a.{number}"
            old_message = await before.jetstream.get_last_msg(RECORDS, subject)
            message = await after.jetstream.get_last_msg(RECORDS, subject)
            assert (message.seq, message.headers, message.time) == (
                old_message.seq,
                old_message.headers,
                old_message.time,
            )
            assert "Nats-TTL" in (message.headers or {})
        assert await after.get(f"{PREFIX}.record.file.a.1", stream=RECORDS) is None
        bucket = await after.jetstream.key_value("stream-leases")
        assert (await bucket.get("lease")).value == b"sealed"
        alive = f"{PREFIX}.record.ledger-alive.{CHAIN}"
        assert await before.get(alive, stream=RECORDS) is not None
        assert await after.get(alive, stream=RECORDS) is None
        assert not await stands_still(after)
        assert not await stands_still(before)
        for journal in journals:
            await bus.close(journal.client)


def changed(taken: Path, to: Path, **fields: Any) -> Path:
    """Copy the backup, with other words in its manifest."""
    shutil.copytree(taken / "kept", to)
    told = msgspec.json.decode((to / MANIFEST).read_bytes())
    (to / MANIFEST).write_bytes(msgspec.json.encode({**told, **fields}))
    return to


async def test_what_does_not_fit_is_refused(taken: Path, tmp_path: Path, elsewhere: str) -> None:
    """Each with its reason, and nothing is changed."""
    settings = settings_of(tmp_path / "two", elsewhere)
    with pytest.raises(Unfit, match="of format 2, this program knows up to 1"):
        await load(settings, changed(taken, tmp_path / "format", format=2))
    with pytest.raises(Unfit, match="of revision 9999, this program knows up to"):
        await load(settings, changed(taken, tmp_path / "revision", revision="9999"))
    with pytest.raises(Unfit, match="leads out of the folder"):
        await load(
            settings, changed(taken, tmp_path / "out", files=[{"name": "../one/batch.key", "bytes": 1, "sha256": ""}])
        )
    folder = changed(taken, tmp_path / "bits")
    data = bytearray((folder / STORE).read_bytes())
    data[-1] ^= 1
    (folder / STORE).write_bytes(data)
    with pytest.raises(Unfit, match=STORE):
        await load(settings, folder)
    (folder / STORE).unlink()
    with pytest.raises(Unfit, match=f"{STORE}: No such file"):
        await load(settings, folder)
    with pytest.raises(Unfit, match=f"is no backup: it has no {MANIFEST}"):
        await load(settings, tmp_path)
    with pytest.raises(Unfit, match="is not the key that seals this backup"):
        await load(settings_of(tmp_path / "key", elsewhere, key="22"), taken / "kept")
    without = settings.model_copy(update={"state_dir": None})
    with pytest.raises(ConfigError, match="the backup has accounts"):
        await load(without, taken / "kept")
    client = await bus.connect(settings.nats, name="gateway")
    assert await client.jetstream().streams_info() == []
    await bus.close(client)
    assert (
        not (tmp_path / "two" / "state" / "accounts.sqlite").exists()
        or not (tmp_path / "two" / "state" / "accounts.sqlite").stat().st_size
    )


async def test_what_is_there_is_left_alone(taken: Path, tmp_path: Path) -> None:
    """Rows and streams are replaced only where that is said, and never under a gateway that runs."""
    with run_broker() as url:
        settings = settings_of(tmp_path / "two", url)
        await fill(settings)
        with pytest.raises(Unfit, match="rows in its table groups already; --replace"):
            await load(settings, taken / "kept")
        with pytest.raises(Unfit, match=r"KV_stream-leases.* already; --replace deletes them"):
            await load(settings_of(tmp_path / "three", url), taken / "kept")
        with pytest.raises(Unfit, match="1 gateways run on this broker"):
            await load(settings, taken / "kept", replace=True)
        client = await bus.connect(settings.nats, name="gateway")
        journal = Journal(client)
        await journal.purge(f"{PREFIX}.record.ledger-alive.*", stream=RECORDS)
        await journal.put(f"{PREFIX}.record.file.new.1", b"x", stream=RECORDS, ttl_s=100)
        told = await load(settings, taken / "kept", replace=True)
        assert "the service key fits" in told
        assert await journal.get(f"{PREFIX}.record.file.new.1", stream=RECORDS) is None
        names = {info.config.name for info in await journal.jetstream.streams_info()}
        assert "theirs" in names, "another's"
        await bus.close(client)


async def test_one_backup_at_a_time(taken: Path, tmp_path: Path) -> None:
    """A second one is refused while the first one's mark stands, which it leaves alone; nothing is left of it."""
    settings = settings_of(tmp_path / "two", (taken / "url").read_text())
    client = await bus.connect(settings.nats, name="gateway")
    journal = Journal(client)
    async with standstill(journal):
        with pytest.raises(Unfit, match="another backup is being taken"):
            await save(settings, tmp_path / "second")
        assert await journal.get(MARK, stream=RECORDS) is not None
    assert await journal.get(MARK, stream=RECORDS) is None
    await bus.close(client)
    with pytest.raises(ConfigError, match="is there already"):
        await save(settings, tmp_path)
    left = await asyncio.to_thread(lambda: [path.name for path in tmp_path.iterdir()])
    assert left == ["two"]
