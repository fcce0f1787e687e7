"""One request on the sealed channel, as the gateway holds it: keys, frames out, events in. Pure.

open_frames()  OPEN, and BODY when the request is large; sent again as the very same bytes until accepted
receive()      a worker's frame -> event (`stream_core.wire.receiver`)
credit(), resume(), cancel()   the frames to send next, each under a number of its own
"""

from typing import Final

from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

from stream_core.envelope.keys import HPKE_OVERHEAD, seal_open
from stream_core.envelope.session import Opener, Sealer, to_gateway_key, to_worker_key
from stream_core.wire.frames import Frame, FrameType, header
from stream_core.wire.payloads import Open, Resume, dump_open
from stream_core.wire.receiver import Event, Receiver

DEFAULT_WINDOW: Final = 256 * 1024
"""Payload bytes of one answer that may be on their way or unread at first; `stream_core.wire.window` lets it grow."""
MAX_INLINE_BODY: Final = 256 * 1024
"""Bytes of an OpenAI request that still travel inside OPEN."""
BODY_PART: Final = 384 * 1024
"""Bytes of one BODY frame; below the relay's frame limit."""


class SealedCall:
    """Keys and counters of one request to one worker.

    Args:
        lease_id: the worker's, 16 bytes.
        worker_key: the worker's public key, as hpc_dispatch published it.
        open_secret: the lease's, likewise.
        request_id: 16 bytes, new for each worker that is tried.
        gateway_id: return address, 16 bytes.
        secret: 32 random bytes of this request alone.
        window: bytes of flow control, at first.
    """

    def __init__(
        self,
        *,
        lease_id: bytes,
        worker_key: MLKEM768X25519PublicKey,
        open_secret: bytes,
        request_id: bytes,
        gateway_id: bytes,
        secret: bytes,
        window: int = DEFAULT_WINDOW,
    ) -> None:
        self.lease_id = lease_id
        self.request_id = request_id
        self._worker_key = worker_key
        self._open_secret = open_secret
        self._gateway_id = gateway_id
        self._secret = secret
        self.window = window
        names = {"lease_id": lease_id, "request_id": request_id}
        self._sealer = Sealer(to_worker_key(secret, **names), request_id=request_id, return_address=gateway_id)
        self.receiver = Receiver(Opener(to_gateway_key(secret, **names)).open, window)

    def open_frames(self, body: bytes, *, path: str, opened_at_ms: int, headers: dict[str, str]) -> list[bytes]:
        """Seal the request; called once.

        Args:
            body: the OpenAI request as JSON.
            path: of the engine's API, "/v1/chat/completions".
            opened_at_ms: unix milliseconds.
            headers: trace context.
        """
        parts: list[bytes] = []
        if len(body) > MAX_INLINE_BODY:
            parts = [body[start : start + BODY_PART] for start in range(0, len(body), BODY_PART)]
        opened = Open(
            secret=self._secret,
            opened_at_ms=opened_at_ms,
            window=self.window,
            path=path,
            body_parts=len(parts),
            headers=headers,
        )
        plaintext = dump_open(opened, b"" if parts else body)
        clear = header(FrameType.OPEN, len(plaintext) + HPKE_OVERHEAD, self.request_id, self._gateway_id, 0)
        sealed = seal_open(
            plaintext, self._worker_key, lease_id=self.lease_id, header=clear, open_secret=self._open_secret
        )
        return [clear + sealed, *(self._sealer.seal(FrameType.BODY, part) for part in parts)]

    def receive(self, frame: Frame) -> Event | None:
        """Take one frame of the worker; see `Receiver.receive`."""
        return self.receiver.receive(frame)

    def credit(self) -> bytes:
        """Acknowledge what came and allow more."""
        return self._sealer.seal(FrameType.CREDIT, self.receiver.credit().dump())

    def resume(self) -> bytes:
        """Ask for everything that is missing."""
        missing = self.receiver.missing_again()
        return self._sealer.seal(FrameType.RESUME, Resume(missing.sequence).dump())

    def cancel(self) -> bytes:
        """Tell the worker to abort."""
        return self._sealer.seal(FrameType.CANCEL, b"")
