"""What a backup is: a folder with a manifest, which names every file, its length and its hash.

    manifest.json          versions, times, the tables' revision, streams with their configuration, files with SHA-256
    store.jsonl.gz         the store's rows as JSON, for SQLite and PostgreSQL alike
    <stream>.snapshot      a stream as the broker packs it: messages, sequences, times to live
    keys.json              the key file, where there is one: hashes, no keys

What is sealed at the broker is sealed here, and the keys that open it (`NOT_INSIDE`) are not here.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_core.errors import LocalError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
STORE: Final = "store.jsonl.gz"
KEYS: Final = "keys.json"
NOT_INSIDE: Final = (
    "What gateways and hpc_dispatch seal at the broker is sealed in here, too: a restore needs the installation's"
    " secrets (STREAM_GATEWAY__BATCH_KEY_FILE, STREAM_HPC_DISPATCH__LEASE_KEY_FILE), which are not in here."
)
_BLOCK: Final = 1 << 20


class Unfit(LocalError):
    """A backup can't be taken, or can't be restored here; nothing was changed unless the message says so."""

    code = "backup_unfit"


class Stream(msgspec.Struct, frozen=True):
    """A stream of the broker."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]

    @property
    def file(self) -> str:
        """Where it is in the folder."""
        return f"{self.name}.snapshot"


class File(msgspec.Struct, frozen=True):
    """A file of the folder."""

    name: str
    bytes: int
    sha256: str


class Sample(msgspec.Struct, frozen=True):
    """A sealed record: whoever restores sees by it whether the service key fits."""

    subject: str
    data: bytes


class Manifest(msgspec.Struct, frozen=True):
    """See the module."""

    program: str
    """Version of the gateway that took it."""
    broker: str
    """Version of the nats-server."""
    begun: str
    """UTC. The backup is the state of this moment, and of the ledger nothing newer."""
    ended: str
    store: str
    """"sqlite" or "postgresql"; empty: this deployment has none."""
    revision: str
    """Of the store's tables."""
    streams: list[Stream]
    files: list[File]
    sample: Sample | None
    note: str = NOT_INSIDE
    format: int = FORMAT

    def has(self, name: str) -> bool:
        """Tell whether a file is in it."""
        return any(file.name == name for file in self.files)

    def write(self, folder: Path) -> None:
        """Write it, to be read by people too."""
        path = folder / MANIFEST
        path.touch(mode=0o600)
        path.write_text(json.dumps(json.loads(msgspec.json.encode(self)), indent=2) + "\n", encoding="utf-8")


class _Format(msgspec.Struct):
    format: int


def described(path: Path) -> File:
    """Measure a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return File(path.name, size, digest.hexdigest())


def read(folder: Path) -> Manifest:
    """Read a backup's manifest and check every file against it.

    Raises:
        Unfit: it is none, or was changed; the message names the file.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        told = msgspec.json.decode(text, type=_Format).format
        if told > FORMAT:
            raise Unfit(f"{path}: a backup of format {told}, this program knows up to {FORMAT}", param="DIR")
        manifest = msgspec.json.decode(text, type=Manifest)
    except FileNotFoundError as error:
        raise Unfit(f"{folder} is no backup: it has no {MANIFEST}", param="DIR") from error
    except (OSError, msgspec.DecodeError) as error:
        raise Unfit(f"{path}: {error}", param="DIR") from error
    for file in manifest.files:
        if Path(file.name).name != file.name:
            raise Unfit(f"{path}: {file.name!r} leads out of the folder", param="DIR")
        try:
            found = described(folder / file.name)
        except OSError as error:
            raise Unfit(f"{folder / file.name}: {error.strerror}", param="DIR") from error
        if found != file:
            words = (
                f"has {found.bytes:,} bytes, SHA-256 {found.sha256}; the manifest says {file.bytes:,}, {file.sha256}"
            )
            raise Unfit(f"{folder / file.name}: {words}", param="DIR")
    missing = [stream.file for stream in manifest.streams if not manifest.has(stream.file)]
    if missing or (manifest.store and not manifest.has(STORE)):
        raise Unfit(f"{path}: it names no file {', '.join(missing) or STORE}", param="DIR")
    return manifest
