"""API keys from a file that is read again when it changes: they need no store of accounts."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from stream_core.api_keys import FULL, UNLIMITED, KeyRecord, load_keys
from stream_core.errors import ConfigError
from stream_gateway.accounts.principal import Principal
from stream_gateway.accounts.records import Key, Rights
from stream_gateway.accounts.rights import principal_of, refusal_of
from stream_gateway.watch import FileWatch, follow

_log = logging.getLogger(__name__)


class Keyring:
    """The keys that are valid now."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        """Read the file; None: there are no keys here.

        Raises:
            ConfigError: not readable or not a key file.
        """
        self.exists = path is not None
        self._path = path
        self._watch = FileWatch(path) if path else None
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._principals: dict[str, Principal] = {}
        self._take(self._read(path) if path else [])

    def find(self, sha256: str) -> Principal | None:
        """Tell who has the key of this SHA-256 (hex); None: nobody, as far as this file knows.

        Raises:
            Unauthenticated: the key was revoked, or has expired.
        """
        key = self._keys.get(sha256)
        if key is None:
            return None
        if (refusal := refusal_of(key, self._clock())) is not None:
            raise refusal
        return self._principals[key.id]

    def of(self, id_: str) -> Principal | None:
        """Find whom a key's id belongs to now; None when it is unknown or revoked."""
        valid = (key for key in self._keys.values() if key.id == id_ and refusal_of(key, self._clock()) is None)
        return self._principals[id_] if any(valid) else None

    def all(self) -> list[Key]:
        """List the keys, as the file has them."""
        return list(self._keys.values())

    async def follow(self, interval_s: float) -> None:
        """Keep up with the file until cancelled; a broken file changes nothing and is logged once."""
        if self._watch is not None:
            await follow(self._watch, interval_s, self._reread)

    async def _reread(self) -> None:
        if self._path is None:
            return
        try:
            self._take(self._read(self._path))
        except ConfigError as error:
            _log.error("keys not read again, the last good ones stay valid: %s", error.message)
        else:
            _log.info("keys read again", extra={"keys": len(self._keys)})

    def _take(self, keys: list[Key]) -> None:
        self._keys = {key.sha256: key for key in keys}
        self._principals = {key.id: _principal(key) for key in keys}

    @staticmethod
    def _read(path: Path) -> list[Key]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"key file {path}: {error.strerror}", param="keys_file") from error
        return [_key(record) for record in load_keys(data, source=str(path)).keys]


def _key(record: KeyRecord) -> Key:
    """Read a key as one of the store; the file does not say when a key was revoked."""
    return Key(
        id=record.id,
        name=record.name,
        prefix=record.prefix,
        sha256=record.sha256,
        admin=record.admin,
        whole=record.context == FULL,
        rights=Rights(_names(record.tiers), _names(record.models), _names(record.clusters), record.privacy),
        limits=record.limits or UNLIMITED,
        created=record.created,
        expires=record.expires,
        revoked=record.created if record.revoked else None,
    )


def _principal(key: Key) -> Principal:
    # One source of rights alone, so there is nothing to compare classes with.
    return principal_of(key=key, user=None, groups=(), project=None, classes=())


def _names(listed: list[str] | None) -> frozenset[str] | None:
    return None if listed is None else frozenset(listed)
