"""Takes a backup while everything runs.

First the mark is set (`batches.standstill`), then parts are read so that each is newer than what points into it: the
records of files and batches, their lines, their results, the ledger on its way, contents; the store comes last, since
the ledger moves from the broker into it. Then an entry is in one of the two at least, a store keeps it once, and the
chains have no hole.
"""

import asyncio
import contextlib
import datetime
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final

from stream_core import bus
from stream_core.broker_client import Client
from stream_core.errors import ConfigError
from stream_core.files import write_private
from stream_gateway import __version__
from stream_gateway.accounts.database import Database
from stream_gateway.backup import rows
from stream_gateway.backup.manifest import KEYS, File, Manifest, Sample, Unfit, described
from stream_gateway.backup.snapshots import Snapshots
from stream_gateway.batches.faults import Conflict, StoreAway
from stream_gateway.batches.journal import Journal
from stream_gateway.batches.standstill import standstill
from stream_gateway.batches.streams import FILES, LEDGER, LINES, RECORDS, RESULTS
from stream_gateway.ledger.road import OPENING
from stream_gateway.settings import GatewaySettings

NAME: Final = "backup"
"""Of this program at the broker: its answers come to `_INBOX.backup.>`."""
_ORDER: Final = (RECORDS, LINES, RESULTS, LEDGER, FILES)


async def save(settings: GatewaySettings, folder: Path) -> Manifest:
    """Take a backup.

    Args:
        settings: of a gateway, with a user of the broker who may take snapshots.
        folder: to be made.

    Raises:
        StreamError: it could not be taken; nothing is left of it.
    """
    database = Database.of(settings)
    try:
        client = await bus.connect(settings.nats, name=NAME)
        try:
            with _becoming(folder) as place:
                manifest = await _save(settings, client, database, place)
                await asyncio.to_thread(manifest.write, place)
        finally:
            await bus.close(client)
    finally:
        if database is not None:
            await database.aclose()
    return manifest


async def _save(settings: GatewaySettings, client: Client, database: Database | None, place: Path) -> Manifest:
    snapshots, journal = Snapshots(client), Journal(client)
    revision, sample = "", None
    names = await snapshots.names()
    async with _quiet(journal, names):
        begun = datetime.datetime.now(datetime.UTC)
        streams = [await snapshots.take(name, place) for name in _ordered(names)]
        if RECORDS in names and (kept := await journal.get(OPENING, stream=RECORDS)) is not None:
            sample = Sample(kept.subject, kept.data)
        if database is not None:
            revision = await rows.dump(database, place)
    files = await asyncio.to_thread(_files, place, settings.keys_file)
    return Manifest(
        program=__version__,
        broker=str(client._server_info.get("version", "unknown")),  # noqa: SLF001  (the library shows it in parts only)
        begun=begun.isoformat(),
        ended=datetime.datetime.now(datetime.UTC).isoformat(),
        store="" if database is None else "sqlite" if database.sqlite else "postgresql",
        revision=revision,
        streams=streams,
        files=files,
        sample=sample,
    )


def _ordered(names: Iterable[str]) -> list[str]:
    """What points into others first; streams that nothing points into come in any order."""
    return sorted(names, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))


def _files(place: Path, keys: Path | None) -> list[File]:
    if keys is not None and keys.exists():
        write_private(place / KEYS, keys.read_bytes())
    return [described(path) for path in sorted(place.iterdir())]


@contextlib.asynccontextmanager
async def _quiet(journal: Journal, names: list[str]) -> AsyncIterator[None]:
    if RECORDS not in names:  # no gateway has used this broker yet
        yield
        return
    try:
        async with standstill(journal):
            yield
    except Conflict as error:
        words = "another backup is being taken, or one died within the last minute"
        raise Unfit(f"{words}: this one may lack what was moved meanwhile, and is dropped") from error
    except StoreAway as error:
        raise Unfit(f"the broker was away meanwhile: {error.message}") from error


@contextlib.contextmanager
def _becoming(folder: Path) -> Iterator[Path]:
    """Give a folder that gets its name when it is whole.

    Raises:
        ConfigError: there is one of that name, or it can't be made.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already; a backup is a folder of its own", param="DIR")
    place = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        place.mkdir(mode=0o700)
        yield place
        for path in (*place.iterdir(), place):
            _settle(path)
        place.rename(folder)
        _settle(folder.parent)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror or error}", param="DIR") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _settle(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
