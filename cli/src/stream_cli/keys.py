"""API keys in the state folder: made, listed, revoked; a key itself is shown once and never kept."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from stream_cli.home import Home, write_private
from stream_core.api_keys import KeyFile, KeyRecord, digest, dump_keys, load_keys, new_key
from stream_core.errors import ConfigError

OWNER: Final = "owner"


def read(path: Path) -> list[KeyRecord]:
    """Read the key file; no file is no keys.

    Raises:
        ConfigError: not readable, or not of that shape.
    """
    try:
        return load_keys(path.read_bytes(), source=str(path)).keys
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error


def _change(path: Path, change: Callable[[list[KeyRecord]], list[KeyRecord]]) -> None:
    """Read, change and write the file while no other `stream` does the same."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_private(path, dump_keys(KeyFile(change(read(path)))))


def create(
    path: Path,
    name: str,
    *,
    now: float,
    tiers: list[str] | None = None,
    privacy: str | None = None,
    clusters: list[str] | None = None,
    context: Literal["full"] | None = None,
) -> str:
    """Make a key and keep its hash.

    Args:
        path: of the key file.
        name: whose it is, for people.
        now: unix seconds.
        tiers: which tiers it may use; None is all.
        privacy: class of all its requests; None is the policy's default.
        clusters: which clusters it may use; None is all.
        context: "full" if its conversations may never be condensed.

    Returns:
        The key, to be shown once.
    """
    if not name.strip():
        raise ConfigError("a key needs a name that says whose it is", param="name")
    key, record = new_key(name, now=now, tiers=tiers, privacy=privacy, clusters=clusters, context=context)
    _change(path, lambda records: [*records, record])
    return key


def revoke(path: Path, key_id: str) -> KeyRecord:
    """Revoke a key for good.

    Raises:
        ConfigError: no key has this id.
    """
    known = {record.id: record for record in read(path)}
    if key_id not in known:
        raise ConfigError(f"no key has the id {key_id!r}; `stream keys list` shows them", param="id")
    _change(path, lambda records: [msgspec.structs.replace(r, revoked=True) if r.id == key_id else r for r in records])
    return known[key_id]


def owner_key(home: Home, *, now: float) -> str:
    """Return the owner's own key, making a new one when the old one is missing or revoked."""
    try:
        home.api_key.chmod(0o600)
        key = home.api_key.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        key = ""
    hashed = digest(key)
    if key and any(record.sha256 == hashed and not record.revoked for record in read(home.keys)):
        return key
    key = create(home.keys, OWNER, now=now)
    write_private(home.api_key, f"{key}\n".encode())
    return key
