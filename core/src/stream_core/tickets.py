"""Relay tickets: a JWT that lets the worker of one lease onto any relay, until the lease ends.

Signed with Ed25519 by hpc_dispatch; a relay holds only the public half. One algorithm is accepted, whatever the
token's header says.
"""

from typing import Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from stream_core.errors import SealError
from stream_core.ids import from_hex, to_hex

_ALGORITHM: Final = "Ed25519"
_AUDIENCE: Final = "stream-relay"
_LEEWAY_S: Final = 30


def new_signing_key() -> tuple[str, str]:
    """Draw a key pair: (private PEM, public PEM)."""
    key = OKPKey.generate_key("Ed25519", private=True)
    return key.as_pem(private=True).decode(), key.as_pem(private=False).decode()


def issue(private_pem: str, *, lease_id: bytes, now: float, lifetime_s: float) -> str:
    """Sign a ticket.

    Args:
        private_pem: from `new_signing_key`.
        lease_id: 16 bytes.
        now: unix seconds.
        lifetime_s: seconds until the lease ends.
    """
    claims = {"sub": to_hex(lease_id), "aud": _AUDIENCE, "iat": int(now), "exp": int(now + lifetime_s)}
    return jwt.encode({"alg": _ALGORITHM}, claims, OKPKey.import_key(private_pem), algorithms=[_ALGORITHM])


def verify(public_pem: str, ticket: str, *, now: float) -> bytes:
    """Check a ticket and return its lease id.

    Raises:
        SealError: forged, expired, for another audience, or signed with another algorithm.
    """
    try:
        token = jwt.decode(ticket, OKPKey.import_key(public_pem), algorithms=[_ALGORITHM])
        claims = jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=_LEEWAY_S,
            sub={"essential": True},
            aud={"essential": True, "value": _AUDIENCE},
            exp={"essential": True},
        )
        claims.validate(token.claims)
        return from_hex(str(token.claims["sub"]))
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        # The last two are the library's answer to a header of odd types, or one nested thousands of times.
        raise SealError(f"ticket refused: {error}") from error
