"""API keys: who is let in, and that a changed file takes effect."""

import asyncio
import logging
from pathlib import Path

import pytest

from stream_core.api_keys import KeyFile, KeyRecord, dump_keys, new_key
from stream_core.errors import ConfigError, Unauthenticated
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
    try:
        keyring.authenticate(bearer(f"Bearer {key}"))
    except Unauthenticated:
        return False
    return True


def bearer(text: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", text.encode())]


def test_a_valid_key_is_a_principal(tmp_path: Path) -> None:
    """A key gives its id, tiers and class; the scheme's case does not matter."""
    keyring = Keyring(write(tmp_path / "keys", RECORD, OTHER_RECORD))
    for scheme in ("Bearer", "bearer", "BEARER"):
        principal = keyring.authenticate(bearer(f"{scheme} {KEY}"))
        assert (principal.id, principal.tiers, principal.privacy) == (RECORD.id, {"local"}, "internal")
    assert keyring.authenticate(bearer(f"Bearer {OTHER}")).tiers is None


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {key}", "Bearer {key}x", "Bearer {shorter}", "{key}", "Bearer " + "x" * 999],
)
def test_anything_else_is_refused(tmp_path: Path, header: str) -> None:
    """No key, another scheme, a near miss and a huge one are all 401, and the key is not repeated."""
    keyring = Keyring(write(tmp_path / "keys", RECORD))
    with pytest.raises(Unauthenticated) as caught:
        keyring.authenticate(bearer(header.format(key=KEY, shorter=KEY[:-1])))
    assert KEY[12:] not in caught.value.message
    with pytest.raises(Unauthenticated, match="no API key"):
        keyring.authenticate([])


def test_revoked_keys_are_refused(tmp_path: Path) -> None:
    """A revoked key is as unknown as any other."""
    revoked = KeyRecord(**{name: getattr(RECORD, name) for name in RECORD.__struct_fields__} | {"revoked": True})
    with pytest.raises(Unauthenticated, match="revoked"):
        Keyring(write(tmp_path / "keys", revoked)).authenticate(bearer(f"Bearer {KEY}"))


async def test_changes_take_effect_and_a_broken_file_does_not(tmp_path: Path) -> None:
    """A new key is let in when the file changes; a broken file leaves the last good keys."""
    path = write(tmp_path / "keys", RECORD)
    keyring = Keyring(path)
    handler = LogEvents()
    logging.getLogger("stream_gateway.auth").addHandler(handler)
    logging.getLogger("stream_gateway.auth").setLevel(logging.INFO)
    following = asyncio.create_task(keyring.follow(0.01))
    async with asyncio.timeout(10):
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
