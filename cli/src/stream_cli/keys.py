"""API keys in the state folder: made, listed, revoked; a key itself is shown once and never kept."""

import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_cli.home import Home, write_private
from stream_core.api_keys import FULL, KeyFile, KeyRecord, Limits, digest, dump_keys, load_keys, new_key
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
    models: list[str] | None = None,
    expires: int | None = None,
    admin: bool = False,
    whole: bool = False,
    limits: Mapping[str, Any] | None = None,
) -> str:
    """Make a key and keep its hash.

    Args:
        path: of the key file.
        name: whose it is, for people.
        now: unix seconds.
        tiers: which tiers it may use; None is all.
        privacy: class of all its requests; None is the policy's default.
        clusters: which clusters it may use; None is all.
        models: which models it may use; None is all.
        expires: unix seconds; None is never.
        admin: whether it may use the admin API.
        whole: whether its conversations may never be condensed.
        limits: what it may spend, by the names of `Limits`.

    Returns:
        The key, to be shown once.
    """
    if not name.strip():
        raise ConfigError("a key needs a name that says whose it is", param="name")
    key, record = new_key(
        name,
        now=now,
        tiers=tiers,
        privacy=privacy,
        clusters=clusters,
        context=FULL if whole else None,
        limits=Limits(**limits) if limits else None,
        models=models,
        expires=expires,
        admin=admin,
    )
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
    """Return the owner's own key, an admin's, making a new one when the old one is missing, revoked or expired."""
    try:
        home.api_key.chmod(0o600)
        key = home.api_key.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        key = ""
    hashed = digest(key)
    found = next((record for record in read(home.keys) if record.sha256 == hashed), None) if key else None
    if found is not None and not found.revoked and (found.expires is None or found.expires > now):
        if not found.admin:  # made by a version that had no admin API
            _change(home.keys, lambda records: [_promoted(r) if r.id == found.id else r for r in records])
        return key
    key = create(home.keys, OWNER, now=now, admin=True)
    write_private(home.api_key, f"{key}\n".encode())
    return key


def shown(record: KeyRecord) -> dict[str, Any]:
    """Describe a key as the admin API does."""
    return msgspec.structs.asdict(record) | {
        "whole": record.context == FULL,
        "revoked": record.created if record.revoked else None,  # the file does not say when
        "limits": {} if record.limits is None else msgspec.structs.asdict(record.limits),
    }


def _promoted(record: KeyRecord) -> KeyRecord:
    return msgspec.structs.replace(record, admin=True)
