"""The accounts of this replica: who is let in, and what keeps up with changes."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from stream_core.errors import ConfigError
from stream_gateway.accounts.administration import Administration
from stream_gateway.accounts.directory import Directory
from stream_gateway.accounts.entrance import Entrance, Tokens
from stream_gateway.auth import Keyring
from stream_gateway.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class Accounts:
    """What there is."""

    keyring: Keyring
    directory: Directory
    entrance: Entrance
    administration: Administration

    def unready(self) -> str | None:
        """Say why nobody could be let in yet; None when somebody can. With a key file that is so at once."""
        waits = not self.keyring.exists and self.directory.configured and not self.directory.known
        return "the accounts have not been read yet" if waits else None


@contextlib.asynccontextmanager
async def open_accounts(settings: GatewaySettings, classes: Callable[[], Sequence[str]]) -> AsyncIterator[Accounts]:
    """Read the key file and open the identity providers, until the block ends. `follow` does the rest.

    Args:
        settings: of the gateway.
        classes: gives the policy's privacy classes, the least confidential first.

    Raises:
        ConfigError: a file can't be read, or nothing at all says who may ask.
    """
    keyring, directory = Keyring(settings.keys_file), Directory(settings, classes)
    async with _tokens(settings) as tokens:
        if tokens is None and not keyring.exists and not directory.configured:
            words = "nobody could be let in: set it, or state_dir, store_url, oidc or introspection"
            raise ConfigError(words, param="keys_file")
        administration = Administration(directory, keyring, classes)
        yield Accounts(keyring, directory, Entrance(keyring, directory, tokens), administration)


@contextlib.asynccontextmanager
async def _tokens(settings: GatewaySettings) -> AsyncIterator[Tokens | None]:
    if not settings.oidc and settings.introspection is None:
        yield None
        return
    from stream_gateway.accounts.tokens import provider_tokens  # noqa: PLC0415  (only who has providers pays for it)

    async with provider_tokens(settings) as tokens:
        yield tokens
