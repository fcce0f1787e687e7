"""The keys that an OIDC issuer signs with: fetched, kept, and fetched again when a token names one that is new."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from joserfc.jwk import ECKey, OKPKey, RSAKey

from stream_core.errors import Unauthenticated, UpstreamUnavailable
from stream_core.telemetry import Once
from stream_gateway.accounts.answers import ask
from stream_gateway.accounts.providers import OidcIssuer, secure_url

_log = logging.getLogger(__name__)
_LEAST_MODULUS: Final = 342
"""Characters of base64url: 2,048 bits. Keys of RSA that are shorter are passed over."""
_MOST_KEYS: Final = 100
_KINDS: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_KIND_OF: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
SigningKey = RSAKey | ECKey | OKPKey


class SigningKeys:
    """The keys of one issuer.

    Args:
        issuer: its settings.
        session: client that trusts it.
        clock: seconds that only grow.
    """

    def __init__(
        self, issuer: OidcIssuer, session: aiohttp.ClientSession, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._session = session
        self._clock = clock
        self._keys: list[tuple[str, str, SigningKey]] = []
        self._fetching = asyncio.Lock()
        self._tried = float("-inf")
        self._fault: str | None = None
        self._faults = Once(_log)

    async def find(self, kid: str | None, algorithm: str) -> SigningKey:
        """Find the key that a token says it was signed with.

        Args:
            kid: as in its header; None: it names none, which is enough where the issuer has one fitting key.
            algorithm: as in its header, and allowed.

        Raises:
            Unauthenticated: the issuer has no such key.
            UpstreamUnavailable: it can't be asked whether it has.
        """
        found = self._known(kid, algorithm)
        if found is not None:
            return found
        async with self._fetching:  # whoever waited looks again: another one may have fetched it
            found = self._known(kid, algorithm)
            if found is None and self._clock() - self._tried >= self._issuer.refetch_pause_s:
                await self._fetch()
                found = self._known(kid, algorithm)
        if found is not None:
            return found
        if self._fault is not None:
            raise UpstreamUnavailable(self._fault)
        raise Unauthenticated("this token is signed with a key that its issuer does not have")

    async def follow(self) -> None:
        """Fetch the keys now, and again and again, until cancelled."""
        while True:
            async with self._fetching:
                await self._fetch()
            again = self._issuer.refresh_s if self._fault is None else self._issuer.refetch_pause_s
            await asyncio.sleep(again)

    def _known(self, kid: str | None, algorithm: str) -> SigningKey | None:
        kind = _KIND_OF[algorithm[:2]]
        fitting = [key for id_, _, key in self._keys if kid in {None, id_} and key.key_type == kind]
        allowed = [key for key in fitting if key.alg in {None, algorithm}]
        return allowed[0] if len(allowed) == 1 else None

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            keys = _usable(await ask(self._session, await self._where()))
        except UpstreamUnavailable as error:
            self._fault = error.message
            self._faults.note("issuer_away", f"{error.message}; keys that are known stay valid")
            return
        self._fault = None
        if [each[:2] for each in keys] != [each[:2] for each in self._keys]:
            _log.info("signing keys read", extra={"issuer": self._issuer.issuer, "keys": len(keys)})
        self._keys = keys

    async def _where(self) -> str:
        if self._issuer.jwks_uri is not None:
            return self._issuer.jwks_uri
        url = f"{self._issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await ask(self._session, url)
        if not isinstance(document, dict) or document.get("issuer") != self._issuer.issuer:
            raise UpstreamUnavailable(f"{url} does not describe the issuer {self._issuer.issuer}")
        try:
            return secure_url(str(document.get("jwks_uri")))
        except ValueError as error:
            raise UpstreamUnavailable(f"{url}: jwks_uri: {error}") from error


def _usable(document: object) -> list[tuple[str, str, SigningKey]]:
    """Read the keys that signatures may be checked with: (id, thumbprint, key). Others are passed over."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise UpstreamUnavailable("the issuer's answer is no list of keys")
    found = []
    for each in listed[:_MOST_KEYS]:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") not in _KINDS:
            continue
        if each["kty"] == "RSA" and len(str(each.get("n"))) < _LEAST_MODULUS:
            continue
        public = {name: value for name, value in each.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}
        try:
            key = _KINDS[each["kty"]].import_key(public)
            thumbprint = key.thumbprint()
        except Exception:  # noqa: BLE001, S112  (whatever the library makes of a key that is none)
            continue
        found.append((str(each.get("kid", "")), thumbprint, key))
    return found
