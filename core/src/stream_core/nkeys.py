"""NATS' own user keys: Ed25519 pairs in their text form, and the signature a client logs in with.

A seed starts with "SU", its public half with "U" (https://docs.nats.io, "NKeys"); the broker knows the public one only.
"""

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stream_core.errors import ConfigError

_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_KEY_BYTES: Final = 32
_CRC_BYTES: Final = 2


class UserKey:
    """One user's key pair.

    Args:
        seed: its text form, "SU..." (58 characters).

    Raises:
        ConfigError: not the seed of a user; the message shows nothing of it.
    """

    def __init__(self, seed: str) -> None:
        try:
            raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
        except (binascii.Error, ValueError) as error:
            raise ConfigError("the nkey seed is no base32 text", param="nats.nkey_file") from error
        body, check = raw[:-_CRC_BYTES], raw[-_CRC_BYTES:]
        if body[:2] != _seed_prefix() or len(body) != _KEY_BYTES + 2 or _crc(body) != check:
            raise ConfigError('not the nkey seed of a user ("SU" and 56 more characters)', param="nats.nkey_file")
        self._key = Ed25519PrivateKey.from_private_bytes(body[2:])
        self.public = _text(bytes([_USER]) + self._key.public_key().public_bytes_raw())
        """"U...": what the broker is told."""

    def sign(self, nonce: str) -> bytes:
        """Answer the broker's challenge, as URL-safe base64 without padding."""
        return base64.urlsafe_b64encode(self._key.sign(nonce.encode())).rstrip(b"=")


def new_seed() -> str:
    """Draw the seed of a new user."""
    return _text(_seed_prefix() + Ed25519PrivateKey.generate().private_bytes_raw())


def _seed_prefix() -> bytes:
    """Both kinds in two bytes: five bits of "seed", then eight of "user"."""
    return bytes([_SEED | _USER >> 5, (_USER & 31) << 3])


def _text(body: bytes) -> str:
    return base64.b32encode(body + _crc(body)).decode("ascii").rstrip("=")


def _crc(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(_CRC_BYTES, "little")
