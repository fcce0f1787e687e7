"""Who is asking: API keys of the key file and of the store, JWTs of OIDC issuers, tokens that an authority knows.

A key is looked up by its SHA-256. The lookup's time depends on the hash alone, which an attacker can't steer towards
a stored one, so comparing takes no other care. Why a key is refused (revoked, expired, replaced, its user disabled) is
told only to whoever holds the whole key; anything else is "unknown", however much of it is right.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from stream_core.api_keys import digest
from stream_core.errors import Unauthenticated
from stream_gateway.accounts.claims import Told
from stream_gateway.accounts.directory import Directory
from stream_gateway.accounts.principal import Principal
from stream_gateway.auth import Keyring

_LONGEST_TOKEN: Final = 16 * 1024
"""Bytes; Entra's access tokens with all their groups are below 8 KiB."""
_KEY_MARK: Final = "sk-"
_PROJECT_HEADER: Final = b"openai-project"

Headers = Iterable[tuple[bytes, bytes]]


class Tokens(Protocol):
    """Whoever can tell what a token is that is no key."""

    async def verify(self, token: str) -> Told | None:
        """Tell whom it names; None: it is of no kind that is known here.

        Raises:
            Unauthenticated: it lets nobody in.
            NotAllowed: its bearer may not use this service.
            UpstreamUnavailable: that can't be told now.
        """
        ...


class Entrance:
    """Lets callers in.

    Args:
        keyring: keys of the key file.
        directory: accounts of the store.
        tokens: of identity providers; None: there are none.
    """

    def __init__(self, keyring: Keyring, directory: Directory, tokens: Tokens | None = None) -> None:
        self._keyring = keyring
        self._directory = directory
        self._tokens = tokens

    async def authenticate(self, headers: Headers) -> Principal:
        """Tell who sends a request with these headers.

        Raises:
            Unauthenticated: no bearer key or token, or none that is valid.
            NotAllowed: it is valid, but not for this service or the project that the request names.
            UpstreamUnavailable: whoever knows can't be asked now.
        """
        token, project = _read(headers)
        sha256 = digest(token)
        principal = self._keyring.find(sha256)
        if principal is not None:
            return principal
        if self._directory.configured and not self._directory.known:
            await self._directory.ready()
        if self._tokens is not None and not token.startswith(_KEY_MARK):
            told = await self._tokens.verify(token)
            if told is not None:
                return self._directory.by_token(told, project)
        return self._directory.by_hash(sha256, project)

    def of(self, id_: str, project: str = "") -> Principal | None:
        """Find what a principal may use now that asked earlier; None: nothing any more.

        Args:
            id_: its.
            project: id of the one that it worked for; empty: none, or its key's own.
        """
        return self._keyring.of(id_) or self._directory.of(id_, project)

    async def settled(self) -> None:
        """Wait until it is known who there is."""
        if self._directory.configured:
            await self._directory.first_read()


def _read(headers: Headers) -> tuple[str, str]:
    """Read token and project.

    Raises:
        Unauthenticated: there is no token.
    """
    token = project = ""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, given = value.partition(b" ")
            given = given.strip()
            if scheme.lower() == b"bearer" and len(given) <= _LONGEST_TOKEN:
                token = given.decode("latin-1")
        elif name == _PROJECT_HEADER:
            project = value.decode("latin-1").strip()
    if not token:
        raise Unauthenticated("no API key provided: send it as 'Authorization: Bearer <key>'")
    return token, project
