"""What batches and feedback leave at the broker, sealed: gateways alone read it. Pure: nonces are arguments.

    sealed = version (1 byte) ‖ nonce (12 bytes, random) ‖ AES-256-GCM(content)
    key    = HKDF(service key, info "stream/v1 batch <kind>", salt = group), so one key per file, batch or record
    AAD    = "stream/v1 batch <kind>" ‖ version ‖ group ‖ "/" ‖ place

    kind     | group      | place                  | content
    ---------+------------+------------------------+---------------------------------------------
    chunk    | file id    | chunk's number         | a piece of a file
    line     | batch id   | line's number          | where in its file a line is: no text
    result   | batch id   | line's number          | what became of a line
    record   | its key    | (empty)                | what is known of a file or a batch
    thumb    | request id | (empty)                | what a caller said about an answer
    asked    | request id | "who" or "this one"    | who asked: from replica to replica, kept nowhere

A chunk, line or result is written once and never changed; a record is, and a broker that puts an older copy of it
back is not noticed.
"""

import hmac
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stream_core.envelope.keys import derive
from stream_core.errors import FrameError, SealError

Kind = Literal["chunk", "line", "result", "record", "thumb", "asked"]

NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
_TAG_BYTES: Final = 16
OVERHEAD: Final = len(_VERSION) + NONCE_BYTES + _TAG_BYTES
"""Bytes that sealing adds."""
_KEPT_CIPHERS: Final = 128
_TAG_DIGITS: Final = 32


class Sealer:
    """Seals and opens with one service key.

    Args:
        service_key: 32 bytes.
    """

    def __init__(self, service_key: bytes) -> None:
        self._key = service_key
        self._ciphers: dict[tuple[Kind, str], AESGCM] = {}

    def seal(self, content: bytes, kind: Kind, group: str, place: str, *, nonce: bytes) -> bytes:
        """Seal content for its place.

        Args:
            content: to be hidden.
            kind: of the table above.
            group: likewise.
            place: likewise.
            nonce: 12 bytes, random, never used again.
        """
        sealed = self._cipher(kind, group).encrypt(nonce, content, _aad(kind, group, place))
        return _VERSION + nonce + sealed

    def unseal(self, sealed: bytes, kind: Kind, group: str, place: str) -> bytes:
        """Open what stands at a place.

        Raises:
            FrameError: cut short, or of another version.
            SealError: not sealed with this service's key, or for another place.
        """
        if len(sealed) < OVERHEAD:
            raise FrameError(f"sealed {kind} of {len(sealed)} bytes, at least {OVERHEAD}")
        if sealed[:1] != _VERSION:
            raise FrameError(f"sealed {kind} of version {sealed[0]}, known is {_VERSION[0]}")
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._cipher(kind, group).decrypt(nonce, body, _aad(kind, group, place))
        except InvalidTag as error:
            raise SealError(f"{kind} {group}/{place} does not open with this service's key") from error

    def owner_tag(self, owner: str) -> str:
        """Name an owner at the broker: 32 hex digits that tell nobody who it is."""
        key = derive(self._key, info=b"stream/v1 batch owner", salt=b"")
        return hmac.digest(key, owner.encode(), "sha256").hex()[:_TAG_DIGITS]

    def _cipher(self, kind: Kind, group: str) -> AESGCM:
        cipher = self._ciphers.get((kind, group))
        if cipher is None:
            while len(self._ciphers) >= _KEPT_CIPHERS:
                del self._ciphers[next(iter(self._ciphers))]
            cipher = AESGCM(derive(self._key, info=_purpose(kind), salt=group.encode()))
            self._ciphers[kind, group] = cipher
        return cipher


def _purpose(kind: Kind) -> bytes:
    return b"stream/v1 batch " + kind.encode("ascii")


def _aad(kind: Kind, group: str, place: str) -> bytes:
    return _purpose(kind) + _VERSION + f"{group}/{place}".encode()
