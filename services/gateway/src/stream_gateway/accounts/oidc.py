"""Access tokens that are JWTs: whose signature, issuer, audience and times are checked here, without asking anybody."""

import time
from collections.abc import Callable
from typing import Final

import orjson
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from stream_core.errors import Unauthenticated
from stream_gateway.accounts.claims import Claims, Told, check_demands, check_times, told
from stream_gateway.accounts.providers import OidcIssuer
from stream_gateway.accounts.signing_keys import SigningKeys

_PARTS: Final = 3
_ID_TOKEN_MARKS: Final = frozenset({"at_hash", "c_hash"})
"""Claims of ID tokens alone: those say who has logged in somewhere, and are no credential for an API."""
_WRONG: Final = (JoseError, ValueError, TypeError, KeyError, RecursionError)
"""Whatever the library makes of a token that is none."""


def looks_like_jwt(token: str) -> bool:
    """Tell whether a token has the form of a signed JWT."""
    parts = token.split(".")
    return len(parts) == _PARTS and all(parts)


class JwtVerifier:
    """Checks the tokens of several issuers.

    Args:
        issuers: with the keys of each.
        clock: unix seconds.
    """

    def __init__(self, issuers: list[tuple[OidcIssuer, SigningKeys]], clock: Callable[[], float] = time.time) -> None:
        self._issuers = {issuer.issuer: (issuer, keys) for issuer, keys in issuers}
        # What is allowed differs between issuers, so one registry for each; other header fields than ours say nothing.
        self._registries = {
            issuer.issuer: JWSRegistry(algorithms=list(issuer.algorithms), strict_check_header=False)
            for issuer, _ in issuers
        }
        self._clock = clock

    async def verify(self, token: str) -> Told:
        """Check a token.

        Returns:
            Whom it names.

        Raises:
            Unauthenticated: it lets nobody in; the message says why.
            NotAllowed: its bearer may not use this service.
            UpstreamUnavailable: its key is not known, and the issuer can't be asked for it.
        """
        raw = token.encode()
        try:
            parsed = jws.extract_compact(raw)
            header = parsed.headers()
            named = _claims(parsed.payload).get("iss")
        except _WRONG as error:
            raise Unauthenticated("this token is no valid JWT") from error
        # What the token says of itself only chooses whom to believe; nothing of it counts before the signature does.
        if not isinstance(named, str) or named not in self._issuers:
            raise Unauthenticated("this token's issuer (iss) is not one of this service's")
        issuer, keys = self._issuers[named]
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.algorithms:
            raise Unauthenticated(f"this token's alg is not one of {', '.join(issuer.algorithms)}")
        if kid is not None and not isinstance(kid, str):
            raise Unauthenticated("this token's kid is no text")
        key = await keys.find(kid, str(algorithm))
        try:
            signed = jws.deserialize_compact(raw, key, registry=self._registries[named])
            claims = _claims(signed.payload)
        except _WRONG as error:
            raise Unauthenticated("this token's signature does not verify") from error
        if not _ID_TOKEN_MARKS.isdisjoint(claims) or claims.get("typ") == "ID":
            raise Unauthenticated("this is an ID token: an access token is needed")
        now = self._clock()
        check_times(claims, now, issuer.leeway_s, needs_end=True)
        check_demands(claims, issuer)
        return told(claims, issuer.issuer, issuer.claims, now)


def _claims(payload: bytes) -> Claims:
    found = orjson.loads(payload)
    if not isinstance(found, dict):
        raise TypeError("claims are an object")
    return found
