"""Restores a backup: everything is checked before anything is changed, and nothing of others is touched."""

import asyncio
from pathlib import Path
from typing import Final

from stream_core import bus
from stream_core.broker_client import Client, NatsError
from stream_core.errors import ConfigError, FrameError, SealError
from stream_core.files import write_private
from stream_gateway.accounts.database import Database
from stream_gateway.backup import rows
from stream_gateway.backup.manifest import KEYS, Manifest, Sample, Unfit, read
from stream_gateway.backup.saving import NAME
from stream_gateway.backup.snapshots import Snapshots
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.sealing import Sealer
from stream_gateway.batches.service import read_key
from stream_gateway.batches.standstill import MARK
from stream_gateway.batches.streams import RECORDS
from stream_gateway.ledger.road import ALIVE, unseal
from stream_gateway.settings import GatewaySettings

_OF_THEN: Final = (MARK, f"{ALIVE}.*")
"""Subjects of records that are about who ran then."""


async def load(
    settings: GatewaySettings, folder: Path, *, replace: bool = False, replicas: int | None = None
) -> list[str]:
    """Restore a backup, into a broker and a store that no gateway uses meanwhile.

    Args:
        settings: of a gateway, with a user of the broker who may restore.
        folder: of the backup.
        replace: what is there may be deleted.
        replicas: nodes that keep a copy of each stream; None: as many as before.

    Returns:
        What was done, in words.

    Raises:
        StreamError: it does not fit, or something is there; nothing was changed, unless the message says so.
    """
    manifest = await asyncio.to_thread(read, folder)
    words = [_check_key(settings, manifest.sample)]
    database = Database.of(settings)
    try:
        await _check_store(database, manifest, replace=replace)
        client = await bus.connect(settings.nats, name=NAME)
        try:
            there = await _check_broker(client, replace=replace)
            try:
                words += await _change(manifest, folder, client, there, database, replicas)
            except Unfit as error:
                raise Unfit(f"{error.message}; the restore is not whole, begin again with --replace") from error
        finally:
            await bus.close(client)
    finally:
        if database is not None:
            await database.aclose()
    return [*words, *_put_keys(settings.keys_file, manifest, folder, replace=replace)]


def _check_key(settings: GatewaySettings, sample: Sample | None) -> str:
    if sample is None:
        return "nothing in it shows which service key belongs to it"
    if settings.batch_key_file is None:
        return "no service key is given (batch_key_file): whether the installation's own one fits was not looked at"
    try:
        unseal(Sealer(read_key(settings.batch_key_file)), sample.data, sample.subject)
    except (FrameError, SealError) as error:
        words = f"{settings.batch_key_file} is not the key that seals this backup; without the right one files,"
        raise Unfit(f"{words} batches, responses and limits in it are lost", param="batch_key_file") from error
    return "the service key fits"


async def _check_store(database: Database | None, manifest: Manifest, *, replace: bool) -> None:
    if not manifest.store:
        return
    if database is None:
        raise ConfigError("the backup has accounts, and neither it nor state_dir is set", param="store_url")
    rows.check_revision(manifest.revision)
    table = await rows.filled(database)
    if table and not replace:
        raise Unfit(f"the store has rows in its table {table} already; --replace deletes them", param="--replace")


async def _check_broker(client: Client, *, replace: bool) -> list[str]:
    there = await Snapshots(client).names()
    if there and not replace:
        raise Unfit(f"the broker has {', '.join(there)} already; --replace deletes them", param="--replace")
    if RECORDS in there:
        try:
            running = await Journal(client).subjects(f"{ALIVE}.*", stream=RECORDS)
        except StoreAway as error:
            raise Unfit(error.message) from error
        if running:
            words = f"{len(running)} gateways run on this broker, or did half a minute ago"
            raise Unfit(f"{words}: stop them, nothing may use what is replaced", param="--replace")
    return there


async def _change(
    manifest: Manifest, folder: Path, client: Client, there: list[str], database: Database | None, replicas: int | None
) -> list[str]:
    snapshots, words = Snapshots(client), list[str]()
    for name in there:
        await snapshots.remove(name)
    for stream in manifest.streams:
        await snapshots.put_back(stream, folder, replicas)
        words.append(f"stream {stream.name}: {stream.state.get('messages', 0):,} messages")
        if stream.name == RECORDS:
            try:
                for subject in _OF_THEN:
                    await Journal(client).purge(subject, stream=RECORDS)
            except (StoreAway, NatsError) as error:
                raise Unfit(f"stream {RECORDS}: {error}") from error
    if manifest.store and database is not None:
        count = await rows.load(database, folder, manifest.revision)
        words.append(f"store: {count:,} rows of revision {manifest.revision}")
    return words


def _put_keys(path: Path | None, manifest: Manifest, folder: Path, *, replace: bool) -> list[str]:
    if path is None or not manifest.has(KEYS):
        return []
    keys = (folder / KEYS).read_bytes()
    if path.exists() and path.read_bytes() != keys and not replace:
        return [f"{path}: left as it is, the backup's differs"]
    try:
        write_private(path, keys)
    except OSError as error:  # a mounted Secret, say
        return [f"{path}: left as it is, it can't be written ({error.strerror}); the backup has another one in {KEYS}"]
    return [f"{path}: written"]
