"""Who is asking: API keys from a file that is read again when it changes.

A key is looked up by its SHA-256. The lookup's time depends on the hash alone, which an attacker can't steer towards
a stored one, so comparing takes no other care.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import msgspec

from stream_core.api_keys import FULL, KeyLimits, KeyRecord, digest, load_keys
from stream_core.errors import ConfigError, Unauthenticated
from stream_gateway.accounts.principal import Limits, Principal, Subject
from stream_gateway.watch import FileWatch, follow

_log = logging.getLogger(__name__)
_MAX_KEY = 512


class Keyring:
    """The keys that are valid now."""

    def __init__(self, path: Path | None) -> None:
        """Read the file; None: there are no keys here.

        Raises:
            ConfigError: not readable or not a key file.
        """
        self._path = path
        self._watch = FileWatch(path) if path else None
        self._principals = self._read(path) if path else {}

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Tell who sends a request with these headers.

        Raises:
            Unauthenticated: no bearer key, or none that is valid.
        """
        for name, value in headers:
            if name == b"authorization":
                scheme, _, key = value.partition(b" ")
                key = key.strip()
                if scheme.lower() != b"bearer" or not key or len(key) > _MAX_KEY:
                    break
                principal = self._principals.get(digest(key.decode("latin-1")))
                if principal is None:
                    raise Unauthenticated("incorrect API key provided: it is unknown or revoked")
                return principal
        raise Unauthenticated("no API key provided: send it as 'Authorization: Bearer <key>'")

    def of(self, id_: str) -> Principal | None:
        """Find whom a key's id belongs to now; None when it is unknown or revoked."""
        return next((principal for principal in self._principals.values() if principal.id == id_), None)

    async def follow(self, interval_s: float) -> None:
        """Keep up with the file until cancelled; a broken file changes nothing and is logged once."""
        if self._watch is not None:
            await follow(self._watch, interval_s, self._reread)

    async def _reread(self) -> None:
        if self._path is None:
            return
        try:
            self._principals = self._read(self._path)
        except ConfigError as error:
            _log.error("keys not read again, the last good ones stay valid: %s", error.message)
        else:
            _log.info("keys read again", extra={"keys": len(self._principals)})

    @staticmethod
    def _read(path: Path) -> dict[str, Principal]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"key file {path}: {error.strerror}", param="keys_file") from error
        keys = load_keys(data, source=str(path)).keys
        return {key.sha256: _principal(key) for key in keys if not key.revoked}


def _principal(key: KeyRecord) -> Principal:
    return Principal(
        key.id,
        _names(key.tiers),
        key.privacy,
        _names(key.clusters),
        key.context == FULL,
        subjects=(Subject("key", key.id, _limits(key.limits)),),
    )


def _limits(listed: KeyLimits | None) -> Limits:
    return Limits() if listed is None else Limits(**msgspec.structs.asdict(listed))


def _names(listed: list[str] | None) -> frozenset[str] | None:
    return None if listed is None else frozenset(listed)
