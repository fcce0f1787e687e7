"""Keys of the key file: who is let in, and that a changed file takes effect."""

import asyncio
import logging
from pathlib import Path

import pytest
from msgspec import structs

from stream_core.api_keys import KeyFile, KeyRecord, Limits, digest, dump_keys, new_key
from stream_core.errors import ConfigError, Unauthenticated
from stream_gateway.accounts.principal import Subject
from stream_gateway.auth import Keyring

KEY, RECORD = new_key("one", now=0, tiers=["local"], privacy="internal")
OTHER, OTHER_RECORD = new_key("two", now=0)


class LogEvents(logging.Handler):
    """What is logged, to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())


def write(path: Path, *records: KeyRecord) -> Path:
    path.write_bytes(dump_keys(KeyFile(list(records))))
    return path


def lets_in(keyring: Keyring, key: str) -> bool:
    return keyring.find(digest(key)) is not None


def test_a_valid_key_is_a_principal(tmp_path: Path) -> None:
    """A key gives its id, what it may use, and its limits; its principal is found by its id, too."""
    limited, record = new_key("three", now=0, models=["m"], admin=True, limits=Limits(tokens_per_minute=9))
    keyring = Keyring(write(tmp_path / "keys", RECORD, OTHER_RECORD, record))
    principal = keyring.find(digest(KEY))
    assert (principal.id, principal.tiers, principal.privacy) == (RECORD.id, {"local"}, "internal")
    assert principal.subjects == (Subject("key", RECORD.id),)
    assert keyring.find(digest(OTHER)).tiers is None
    principal = keyring.find(digest(limited))
    assert (principal.models, principal.admin) == ({"m"}, True)
    assert principal.subjects == (Subject("key", record.id, Limits(tokens_per_minute=9)),)
    assert keyring.of(record.id) == principal


def test_revoked_and_expired_keys_are_refused(tmp_path: Path) -> None:
    """Whoever holds such a key is told why; nobody acts for it any more."""
    revoked = structs.replace(RECORD, revoked=True)
    expired = structs.replace(OTHER_RECORD, expires=100)
    keyring = Keyring(write(tmp_path / "keys", revoked, expired), clock=lambda: 100.0)
    with pytest.raises(Unauthenticated, match="revoked"):
        keyring.find(digest(KEY))
    with pytest.raises(Unauthenticated, match="expired"):
        keyring.find(digest(OTHER))
    assert keyring.of(RECORD.id) is None
    assert keyring.of(OTHER_RECORD.id) is None
    assert Keyring(tmp_path / "keys", clock=lambda: 99.0).of(OTHER_RECORD.id) is not None


async def test_changes_take_effect_and_a_broken_file_does_not(tmp_path: Path) -> None:
    """A new key is let in when the file changes; a broken file leaves the last good keys."""
    path = write(tmp_path / "keys", RECORD)
    keyring = Keyring(path)
    handler = LogEvents()
    logging.getLogger("stream_gateway.auth").addHandler(handler)
    logging.getLogger("stream_gateway.auth").setLevel(logging.INFO)
    following = asyncio.create_task(keyring.follow(0.01))
    async with asyncio.timeout(60):
        path.write_text("{broken")
        assert "last good ones stay valid" in await handler.lines.get()
        assert lets_in(keyring, KEY)
        write(tmp_path / "new", OTHER_RECORD).replace(path)
        assert await handler.lines.get() == "keys read again"
    assert lets_in(keyring, OTHER)
    assert not lets_in(keyring, KEY)
    following.cancel()
    logging.getLogger("stream_gateway.auth").removeHandler(handler)


def test_a_missing_or_broken_file_stops_the_start(tmp_path: Path) -> None:
    """Without a readable key file there is no gateway, and the error names it."""
    with pytest.raises(ConfigError, match="absent"):
        Keyring(tmp_path / "absent")
    (tmp_path / "broken").write_text('{"keys": [{"id": 1}]}')
    with pytest.raises(ConfigError, match="broken"):
        Keyring(tmp_path / "broken")
