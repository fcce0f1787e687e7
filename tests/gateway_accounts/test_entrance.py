"""The one door: keys of file and store, tokens of providers, and what anybody else is told."""

import pytest
from gateway_accounts.conftest import CLASSES, following, gateway_settings
from gateway_accounts.provider import AUDIENCE, Provider
from gateway_accounts.test_store import PROJECT, USER, fill, key_record

from stream_core.api_keys import KeyFile, dump_keys, new_key
from stream_core.errors import ConfigError, Unauthenticated
from stream_gateway.accounts.claims import user_id
from stream_gateway.accounts.directory import Directory
from stream_gateway.accounts.entrance import Entrance
from stream_gateway.accounts.faults import AccountsAway
from stream_gateway.accounts.life import open_accounts
from stream_gateway.accounts.records import User
from stream_gateway.accounts.tokens import provider_tokens
from stream_gateway.auth import Keyring

KEY, RECORD = new_key("of the file", now=0)


def bearer(text: str, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", text.encode("latin-1")), *more]


@pytest.fixture
def keyring(tmp_path) -> Keyring:
    """A key file with one key."""
    (tmp_path / "keys").write_bytes(dump_keys(KeyFile([RECORD])))
    return Keyring(tmp_path / "keys")


@pytest.fixture
def alone(keyring, tmp_path) -> Entrance:
    """That file and nothing else."""
    return Entrance(keyring, Directory(gateway_settings(tmp_path), lambda: CLASSES))


async def test_keys_of_the_file(alone) -> None:
    """The scheme's case does not matter."""
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (await alone.authenticate(bearer(f"{scheme} {KEY}"))).id == RECORD.id


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", "Basic {key}", "Bearer {key}x", "Bearer {shorter}", "{key}", "Bearer {head}{tail}"),
        *("Bearer " + "x" * 99, "Bearer " + "x" * 99_999, "Bearer a.b.c", "Bearer \x00\xff", "Bearer sk-"),
    ],
)
async def test_anything_else_is_refused(alone, header) -> None:
    """No key, another scheme, near misses with the right beginning and huge ones are all 401; nothing is repeated."""
    shape = {"key": KEY, "shorter": KEY[:-1], "head": KEY[:20], "tail": "A" * (len(KEY) - 20)}
    with pytest.raises(Unauthenticated) as caught:
        await alone.authenticate(bearer(header.format(**shape)))
    assert KEY[12:] not in caught.value.message
    assert caught.value.message.startswith(("no API key", "incorrect API key provided: it is unknown"))
    with pytest.raises(Unauthenticated, match="no API key"):
        await alone.authenticate([])


async def test_keys_of_file_and_store_together(place, store, keyring) -> None:
    """A key of the file is valid before the store was read; one of the store waits for that."""
    key, record = key_record(user=USER.id)
    await fill(store, USER, PROJECT, record)
    async with store.change() as change:
        await change.join(PROJECT, USER.id)
    unread = Entrance(keyring, Directory(place.settings_of(store_patience_s=0.05), lambda: CLASSES))
    assert (await unread.authenticate(bearer(f"Bearer {KEY}"))).id == RECORD.id
    with pytest.raises(AccountsAway):
        await unread.authenticate(bearer(f"Bearer {key}"))
    async with following(place) as directory:
        entrance = Entrance(keyring, directory)
        assert (await entrance.authenticate(bearer(f"Bearer {key}"))).id == record.id
        named = bearer(f"Bearer {key}", (b"openai-project", PROJECT.name.encode()))
        assert (await entrance.authenticate(named)).project == PROJECT.id
        assert entrance.of(RECORD.id).id == RECORD.id
        assert entrance.of(record.id).user == USER.id
        assert entrance.of("key-nobody") is None


async def test_tokens_without_a_store(tmp_path) -> None:
    """A provider alone is enough: its users come in, and have no limits; a key is still a key."""
    async with Provider().running() as provider:
        issuer = {"issuer": provider.url, "audience": [AUDIENCE]}
        settings = gateway_settings(tmp_path, oidc=[issuer])
        async with provider_tokens(settings) as tokens:
            entrance = Entrance(Keyring(None), Directory(settings, lambda: CLASSES), tokens)
            principal = await entrance.authenticate(bearer(f"Bearer {provider.token()}"))
            assert principal.id == f"user:{user_id(provider.url, 'ann')}"
            assert principal.groups == {"physics"}
            assert not principal.admin
            for other in ("sk-stream-x", "opaque"):
                with pytest.raises(Unauthenticated, match="unknown"):
                    await entrance.authenticate(bearer(f"Bearer {other}"))


async def test_a_disabled_user_has_no_token(place, store) -> None:
    """However valid it is; and an admin of the store is one with a token, too."""
    async with Provider().running() as provider:
        ids = {name: user_id(provider.url, name) for name in ("ann", "ben")}
        await fill(store, User(ids["ann"], "Ann", admin=True), User(ids["ben"], "Ben", disabled=True))
        settings = place.settings_of(oidc=[{"issuer": provider.url, "audience": [AUDIENCE]}])
        async with provider_tokens(settings) as tokens, following(place) as directory:
            entrance = Entrance(Keyring(None), directory, tokens)
            assert (await entrance.authenticate(bearer(f"Bearer {provider.token()}"))).admin
            with pytest.raises(Unauthenticated, match="disabled"):
                await entrance.authenticate(bearer(f"Bearer {provider.token(sub='ben')}"))


async def test_somebody_must_be_let_in(tmp_path) -> None:
    """A gateway that could let nobody in does not start, and says which settings there are."""
    with pytest.raises(ConfigError, match="state_dir, store_url, oidc or introspection"):
        async with open_accounts(gateway_settings(tmp_path), lambda: CLASSES):
            pass
