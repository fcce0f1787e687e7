"""Relay tickets: the one that holds, and the tricks that do not."""

import base64
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from stream_core import tickets
from stream_core.errors import SealError

PRIVATE, PUBLIC = tickets.new_signing_key()
LEASE = bytes(range(16))
NOW = time.time()


def test_holds_until_it_expires():
    """A ticket names its lease while the lease lasts, and is refused afterwards."""
    ticket = tickets.issue(PRIVATE, lease_id=LEASE, now=NOW, lifetime_s=60)
    assert tickets.verify(PUBLIC, ticket, now=NOW) == LEASE
    with pytest.raises(SealError, match="ticket refused"):
        tickets.verify(PUBLIC, ticket, now=NOW + 120)


def _unsigned() -> str:
    def part(value: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'sub': LEASE.hex(), 'aud': 'stream-relay', 'exp': NOW + 60})}."


def _signed(claims: dict[str, object]) -> str:
    return jwt.encode({"alg": "Ed25519"}, claims, OKPKey.import_key(PRIVATE), algorithms=["Ed25519"])


@pytest.mark.parametrize(
    "ticket",
    [
        tickets.issue(tickets.new_signing_key()[0], lease_id=LEASE, now=NOW, lifetime_s=60),
        _unsigned(),
        jwt.encode(
            {"alg": "HS256"},
            {"sub": LEASE.hex(), "aud": "stream-relay", "exp": NOW + 60},
            OctKey.import_key(PUBLIC.replace("-----BEGIN PUBLIC KEY-----", "").strip()),
        ),
        _signed({"sub": LEASE.hex(), "aud": "another", "exp": NOW + 60}),
        _signed({"sub": LEASE.hex(), "aud": "stream-relay"}),
        _signed({"sub": "../../x", "aud": "stream-relay", "exp": NOW + 60}),
        "",
        "a.b.c",
    ],
    ids=[
        "another signer",
        "alg none",
        "public key as HMAC key",
        "audience",
        "no expiry",
        "no lease",
        "empty",
        "garbage",
    ],
)
def test_forgeries(ticket):
    """Another signer, algorithm, audience or shape is refused, whatever the token's header says."""
    with pytest.raises(SealError):
        tickets.verify(PUBLIC, ticket, now=NOW)
