"""The keys of a lease: who can open what, and how a worker proves that a key is its own.

- A **bootstrap secret** (32 bytes, drawn by hpc_dispatch) reaches the worker as part of its job.
- The worker draws a `WorkerKey` (HPKE KEM MLKEM768_X25519, post-quantum hybrid) that never leaves its memory.
- It announces the public half, authenticated with HMAC-SHA-256 under a key derived from the bootstrap secret;
  relay and broker see the announcement and can't change it.
- Gateways seal OPEN to that public key (RFC 9180, single shot; HKDF-SHA256, AES-256-GCM). The clear header is
  part of HPKE's `info`, so an OPEN fits no other lease, request or gateway. So is the lease's **open secret**, which
  hpc_dispatch derives from the bootstrap secret and tells to gateways alone: the public key travels in the clear, and
  without that secret a relay could seal requests of its own.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from stream_core.errors import SealError

SECRET_BYTES: Final = 32
MLKEM768_BYTES: Final = 1184
X25519_BYTES: Final = 32
HPKE_OVERHEAD: Final = KEM.MLKEM768_X25519.enc_length() + 16
"""Bytes that sealing an OPEN adds: the encapsulated key and the tag."""

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MAC_BYTES: Final = 32


def derive(secret: bytes, *, info: bytes, salt: bytes) -> bytes:
    """Derive a 32-byte key by HKDF-SHA-256 (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A worker's public key as its two raw parts; the hybrid class has no serialisation of its own."""

    mlkem768: bytes
    x25519: bytes

    def __post_init__(self) -> None:
        if len(self.mlkem768) != MLKEM768_BYTES or len(self.x25519) != X25519_BYTES:
            raise SealError(
                f"public key of {len(self.mlkem768)} + {len(self.x25519)} bytes, "
                f"exactly {MLKEM768_BYTES} + {X25519_BYTES}"
            )

    def load(self) -> MLKEM768X25519PublicKey:
        """Rebuild the key object; done once per worker, not per request.

        Raises:
            SealError: the bytes are no valid key.
        """
        try:
            return MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(self.mlkem768),
                x25519.X25519PublicKey.from_public_bytes(self.x25519),
            )
        except ValueError as error:
            raise SealError(f"public key: {error}") from error


class WorkerKey:
    """A worker's key pair, in memory only: its loss at the lease's end is the forward secrecy."""

    def __init__(self) -> None:
        post_quantum = mlkem.MLKEM768PrivateKey.generate()
        classical = x25519.X25519PrivateKey.generate()
        self._private = MLKEM768X25519PrivateKey(post_quantum, classical)
        self.public = PublicKey(post_quantum.public_key().public_bytes_raw(), classical.public_key().public_bytes_raw())

    def open(self, body: bytes, *, lease_id: bytes, header: bytes, open_secret: bytes) -> bytes:
        """Open the body of an OPEN frame.

        Raises:
            SealError: sealed to another key, lease, request or gateway, by nobody of ours, or changed on the way.
        """
        try:
            return _SUITE.decrypt(body, self._private, info=_open_info(lease_id, header, open_secret))
        except (InvalidTag, ValueError) as error:
            raise SealError("OPEN does not open with this worker's key") from error


def seal_open(
    plaintext: bytes, key: MLKEM768X25519PublicKey, *, lease_id: bytes, header: bytes, open_secret: bytes
) -> bytes:
    """Seal the body of an OPEN frame to a worker.

    Args:
        plaintext: the encoded `Open`.
        key: from `PublicKey.load`.
        lease_id: 16 bytes.
        header: the frame's clear header; its body length is `len(plaintext) + HPKE_OVERHEAD`.
        open_secret: the lease's, 32 bytes, from hpc_dispatch.
    """
    return _SUITE.encrypt(plaintext, key, info=_open_info(lease_id, header, open_secret))


def open_secret_of(bootstrap_secret: bytes, *, lease_id: bytes) -> bytes:
    """Derive what gateways prove themselves with to the worker of a lease: 32 bytes."""
    return derive(bootstrap_secret, info=b"stream/v1 open", salt=lease_id)


def _open_info(lease_id: bytes, header: bytes, open_secret: bytes) -> bytes:
    return b"stream/v1 open" + lease_id + header + open_secret


def sign_announcement(announcement: bytes, *, lease_id: bytes, bootstrap_secret: bytes) -> bytes:
    """Put the MAC before an encoded `Announcement`: the body of ANNOUNCE."""
    return _announcement_mac(announcement, lease_id, bootstrap_secret) + announcement


def verify_announcement(body: bytes, *, lease_id: bytes, bootstrap_secret: bytes) -> bytes:
    """Check the MAC and return the encoded `Announcement`.

    Raises:
        SealError: not made by who has the lease's bootstrap secret, or made for another lease.
    """
    mac, announcement = body[:_MAC_BYTES], body[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _announcement_mac(announcement, lease_id, bootstrap_secret)):
        raise SealError("announcement does not verify")
    return announcement


def _announcement_mac(announcement: bytes, lease_id: bytes, bootstrap_secret: bytes) -> bytes:
    key = derive(bootstrap_secret, info=b"stream/v1 announce", salt=lease_id)
    return hmac.digest(key, lease_id + announcement, hashlib.sha256)
