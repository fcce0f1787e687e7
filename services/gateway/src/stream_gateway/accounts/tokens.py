"""Tokens of all identity providers that are configured, loaded when there are any."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from stream_gateway.accounts.answers import client
from stream_gateway.accounts.claims import Told
from stream_gateway.accounts.introspecting import Introspector
from stream_gateway.accounts.oidc import JwtVerifier, looks_like_jwt
from stream_gateway.accounts.signing_keys import SigningKeys
from stream_gateway.settings import GatewaySettings


class ProviderTokens:
    """Tells what tokens are.

    Args:
        jwts: for those that are JWTs; None: no OIDC issuer is configured.
        introspector: for all others; None: no authority is.
    """

    def __init__(self, jwts: JwtVerifier | None, introspector: Introspector | None) -> None:
        self._jwts = jwts
        self._introspector = introspector

    async def verify(self, token: str) -> Told | None:
        """Tell whom a token names; None, and errors, as of `Tokens.verify`."""
        if self._jwts is not None and looks_like_jwt(token):
            return await self._jwts.verify(token)
        return await self._introspector.verify(token) if self._introspector is not None else None


@contextlib.asynccontextmanager
async def provider_tokens(settings: GatewaySettings) -> AsyncIterator[ProviderTokens | None]:
    """Open what the settings name, until the block ends; None when they name nobody.

    Raises:
        ConfigError: a file can't be read.
    """
    if not settings.oidc and settings.introspection is None:
        yield None
        return
    async with contextlib.AsyncExitStack() as stack:
        issuers = [
            (issuer, SigningKeys(issuer, await stack.enter_async_context(client(issuer.ca_file))))
            for issuer in settings.oidc
        ]
        introspector = None
        if settings.introspection is not None:
            session = await stack.enter_async_context(client(settings.introspection.ca_file))
            introspector = Introspector(settings.introspection, session)
        tasks = [asyncio.create_task(keys.follow()) for _, keys in issuers]
        try:
            yield ProviderTokens(JwtVerifier(issuers) if issuers else None, introspector)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
