"""A lease as it is kept at the broker, sealed: the broker holds it for the next run of this program and can't read it.

    sealed = version (1 byte) ‖ nonce (12 bytes, random) ‖ AES-256-GCM(record as JSON)
    key    = HKDF(service key, info "stream/v1 lease record", salt = place), so one key per lease
    AAD    = "stream/v1 lease record" ‖ version ‖ place, where place = "<bucket>/<lease in hex>"

`counter` grows with each writing of a lease. A record with a lower one than was written before is an older copy. Who
has seen no later one can't tell: a broker that puts an old copy back is noticed by the program that wrote the newer
one and by any later run that has its `state_dir`, by nobody else. Pure: nonces are arguments.
"""

from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stream_core.envelope.keys import SECRET_BYTES, derive
from stream_core.errors import FrameError, SealError
from stream_core.ids import ID_BYTES, to_hex
from stream_core.wire import payloads

_VERSION: Final = b"\x01"
_PURPOSE: Final = b"stream/v1 lease record"
NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LEAST: Final = len(_VERSION) + NONCE_BYTES + _TAG_BYTES


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that another run of this program needs to go on with a lease."""

    lease: bytes  # 16 bytes
    bootstrap_secret: bytes  # 32 bytes
    cluster: str
    backend: str
    model: str
    fingerprint: str  # of what its worker was told to serve
    expires: float  # unix seconds
    counter: int = 0
    handle: str = ""  # of the backend; empty: not submitted, or its answer was not written down
    phase: str = "starting"
    stopping: bool = False
    announcement: payloads.Announcement | None = None
    given_up: list[bytes] = []
    last_sequence: int = -1  # of STATUS
    seen: float | None = None  # unix seconds of the last STATUS
    ran_from: float | None = None  # unix seconds before which its job did not run

    def __repr__(self) -> str:
        """Show which one it is, and no secret."""
        return f"Record({to_hex(self.lease)}, {self.cluster}, {self.model}, counter={self.counter})"


def seal(record: Record, service_key: bytes, *, bucket: str, nonce: bytes) -> bytes:
    """Seal a record for its place in a bucket.

    Args:
        record: as it is.
        service_key: 32 bytes.
        bucket: its name.
        nonce: 12 bytes, random, never used again.
    """
    return seal_bytes(payloads.dump(record), service_key, bucket=bucket, key=to_hex(record.lease), nonce=nonce)


def seal_bytes(plaintext: bytes, service_key: bytes, *, bucket: str, key: str, nonce: bytes) -> bytes:
    """Seal anything for its place in a bucket; `nonce` as for `seal`."""
    place = _place(bucket, key)
    return _VERSION + nonce + _cipher(service_key, place).encrypt(nonce, plaintext, _aad(place))


def unseal(sealed: bytes, service_key: bytes, *, bucket: str, key: str) -> Record:
    """Open what stands in a bucket.

    Args:
        sealed: as the broker gave it.
        service_key: 32 bytes.
        bucket: its name.
        key: under which it stood.

    Raises:
        FrameError: cut short, of another version, or no record of this lease.
        SealError: not sealed by this service, or for another place.
    """
    plaintext = unseal_bytes(sealed, service_key, bucket=bucket, key=key)
    record = payloads.load(plaintext, Record)
    if len(record.lease) != ID_BYTES or to_hex(record.lease) != key:
        raise FrameError(f"lease record {key} is about another lease")
    if len(record.bootstrap_secret) != SECRET_BYTES:
        raise FrameError(f"lease record {key}: secret of {len(record.bootstrap_secret)} bytes, exactly {SECRET_BYTES}")
    return record


def unseal_bytes(sealed: bytes, service_key: bytes, *, bucket: str, key: str) -> bytes:
    """Open what `seal_bytes` sealed for this place.

    Raises:
        FrameError: cut short, or of another version.
        SealError: not sealed by this service, or for another place.
    """
    if len(sealed) < _LEAST:
        raise FrameError(f"lease record of {len(sealed)} bytes, at least {_LEAST}")
    if sealed[:1] != _VERSION:
        raise FrameError(f"lease record of version {sealed[0]}, known is {_VERSION[0]}")
    place = _place(bucket, key)
    nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return _cipher(service_key, place).decrypt(nonce, body, _aad(place))
    except InvalidTag as error:
        raise SealError(f"lease record {key} does not open with this service's key") from error


def _place(bucket: str, key: str) -> bytes:
    return f"{bucket}/{key}".encode()


def _aad(place: bytes) -> bytes:
    return _PURPOSE + _VERSION + place


def _cipher(service_key: bytes, place: bytes) -> AESGCM:
    return AESGCM(derive(service_key, info=_PURPOSE, salt=place))
