"""Sealed sessions: AES-256-GCM with one key per request and direction, counters as nonces, headers as AAD.

A request's two keys come from its request secret by HKDF; the lease's status key comes from the bootstrap secret.
The nonce is the 96-bit big-endian sequence number. A key never seals two frames under one number: `Sealer` counts
by itself, and a frame that must travel again is the very same bytes.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stream_core.envelope.keys import derive
from stream_core.errors import SealError
from stream_core.wire.frames import NOBODY, Frame, FrameType, header

TAG_BYTES: Final = 16


def to_worker_key(request_secret: bytes, *, lease_id: bytes, request_id: bytes) -> bytes:
    """Derive the key that seals what the gateway sends to the worker for one request."""
    return derive(request_secret, info=b"stream/v1 gateway to worker", salt=lease_id + request_id)


def to_gateway_key(request_secret: bytes, *, lease_id: bytes, request_id: bytes) -> bytes:
    """Derive the key that seals what the worker sends back for one request."""
    return derive(request_secret, info=b"stream/v1 worker to gateway", salt=lease_id + request_id)


def status_key(bootstrap_secret: bytes, *, lease_id: bytes, instance: bytes) -> bytes:
    """Derive the key that seals a worker's STATUS.

    Args:
        bootstrap_secret: the lease's.
        lease_id: 16 bytes.
        instance: the worker's X25519 public key: a worker restarted under the same lease counts from 0 again,
            with a new key.
    """
    return derive(bootstrap_secret, info=b"stream/v1 status" + instance, salt=lease_id)


def stop_key(bootstrap_secret: bytes, *, lease_id: bytes, instance: bytes) -> bytes:
    """Derive the key that authenticates hpc_dispatch's STOP to one worker process; arguments as of `status_key`."""
    return derive(bootstrap_secret, info=b"stream/v1 stop" + instance, salt=lease_id)


def seal_stop(key: bytes, *, lease_id: bytes, sequence: int) -> bytes:
    """Build a STOP: a whole frame that says nothing but that hpc_dispatch made it.

    It carries no text, so a number that is used again (a clock set back) seals the very same bytes and tells nothing.

    Args:
        key: `stop_key` of the worker process that is to stop.
        lease_id: 16 bytes.
        sequence: higher than that of every STOP before, as unix milliseconds are: a worker takes no older one.
    """
    clear = header(FrameType.STOP, TAG_BYTES, lease_id, NOBODY, sequence)
    return clear + AESGCM(key).encrypt(sequence.to_bytes(12, "big"), b"", clear)


class Sealer:
    """Seals the frames of one direction, in order from sequence number 0."""

    def __init__(self, key: bytes, *, request_id: bytes, return_address: bytes = NOBODY) -> None:
        self._cipher = AESGCM(key)
        self._request_id = request_id
        self._return_address = return_address
        self.next_sequence = 0

    def seal(self, type_: FrameType, plaintext: bytes, flags: int = 0) -> bytes:
        """Seal one frame and count on.

        Returns:
            The whole frame as it travels.
        """
        sequence = self.next_sequence
        clear = header(type_, len(plaintext) + TAG_BYTES, self._request_id, self._return_address, sequence, flags)
        body = self._cipher.encrypt(sequence.to_bytes(12, "big"), plaintext, clear)
        self.next_sequence = sequence + 1
        return clear + body


class Opener:
    """Opens frames of one direction; which sequence number may come next is the receiver's business."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def open(self, frame: Frame) -> bytes:
        """Open one frame.

        Raises:
            SealError: header or body were changed, or the frame belongs to another request or direction.
        """
        try:
            return self._cipher.decrypt(frame.sequence.to_bytes(12, "big"), frame.body, frame.header)
        except (InvalidTag, ValueError) as error:
            raise SealError(f"{frame.type.name} frame {frame.sequence} does not open") from error
