"""One answer on the sealed channel: frames are taken as they come, the reader takes batches at its own pace.

Credit is given only for what was read; the window grows with the path (`stream_core.wire.window`).
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from stream_core.errors import RemoteError, StreamBroken, UpstreamTimeout, UpstreamUnavailable, WorkerRefused
from stream_core.metrics import Counter
from stream_core.openai.chunks import is_finished
from stream_core.openai.sse import DONE, is_done
from stream_core.telemetry import Once
from stream_core.wire.frames import Frame, FrameType
from stream_core.wire.payloads import End, Failure, Head
from stream_core.wire.receiver import Alive, Chunks, Missing
from stream_core.wire.window import Window
from stream_gateway.sealed_call import SealedCall

_CREDITS = Counter("stream_credits_total", "CREDIT frames: windows that were opened again, and signs of life.")
_RESUMES = Counter("stream_resumes_total", "RESUME frames: something was lost on the way and asked for again.")
_LAST_EVENTS = 8
_CREDIT_AGAIN_S = 0.05
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence may last, in seconds."""

    tick: float = 1.0
    """Between two looks at all open answers."""
    credit_every: float = 2.0
    """An open answer acknowledges at least this often: it also tells the worker that somebody waits."""
    resume_after: float = 7.0
    """Longer than a worker's sign of life takes: something was lost."""
    lost_after: float = 30.0
    """The worker is given up."""
    resend_open: tuple[float, ...] = (0.5, 1.0, 1.5)
    """OPEN is sent once for each of these, until it is accepted."""


class Carrier(Protocol):
    """What carries an answer's frames; see `stream_gateway.channel.Channel`."""

    patience: Patience
    faults: Once

    def send(self, lease_id: bytes, frame: bytes) -> None:
        """Queue a frame for a worker."""
        ...

    def forget(self, answer: "SealedAnswer") -> None:
        """Drop an answer."""
        ...


class SealedAnswer:
    """One answer on the sealed channel; see `stream_gateway.backends.contract.Answer`."""

    def __init__(self, channel: Carrier, call: SealedCall, idle_timeout_s: float, window: Window) -> None:
        self._channel = channel
        self._idle_timeout_s = idle_timeout_s
        self._window = window
        self._chunks: list[bytes] = []
        self._filled = asyncio.Event()
        self._ended = False
        self._closed = False
        self._error: RemoteError | None = None
        self._opened = time.monotonic()
        self._heard = self._proved = self._progress = self._credited = self._asked = self._opened
        self.accepted = asyncio.Event()
        self.head: Head | None = None
        self.content_type = ""
        self.cluster = ""
        self.first_at: float | None = None
        """When the first of the engine's bytes arrived."""
        self._on_first: Callable[[float], None] | None = None
        self.call = call

    def feed(self, frame: Frame) -> None:
        """Take one frame of the worker."""
        event = self.call.receive(frame)
        self._heard = time.monotonic()
        if event is not None and not isinstance(event, Missing):
            self._proved = self._heard
        match event:
            case Chunks(chunks, _):
                self._take(chunks)
            case Alive():
                self._accept()
                self._send_credit()
            case Missing(sequence):
                self._channel.faults.count("seal_broken" if frame.sequence == sequence else "gap")
                self._channel.faults.note("missing", "frames were lost, changed or reordered on the way")
                self._resume()
            case Head():
                self.head = event
                self.content_type = event.content_type
                self._progress = self._heard
                self._filled.set()
            case End():
                self._ended = True
                self._close(self.call.credit())
            case Failure():
                self._note(event, frame)
                self.fail(_error_of(event))
            case None:
                self._nothing_new(frame)

    def _accept(self) -> None:
        """The worker has the request. The path is known now, or a longer one where OPEN had to be sent again."""
        if not self.accepted.is_set():
            self._window.path(self._heard - self._opened, self._heard)
            self.accepted.set()

    def _note(self, failure: Failure, frame: Frame) -> None:
        """Count a failure that is not the worker's word on its engine, but a fault of its own or of the path."""
        if frame.type is not FrameType.ERROR:
            self._channel.faults.note(failure.code, failure.message)

    def _take(self, chunks: list[bytes]) -> None:
        self._progress = self._heard
        self._chunks += chunks
        self._filled.set()
        if self.first_at is None:
            self.first_at = self._heard
            if self._on_first is not None:
                self._on_first(self._heard)

    def _nothing_new(self, frame: Frame) -> None:
        """Answer a frame that was known already, or came after a gap that was reported."""
        self._channel.faults.count("replay" if frame.sequence < self.call.receiver.next_sequence else "gap")
        if self._closed:
            return
        # A worker that sends again has not heard from us: its path was broken, and so was ours to it.
        if self._heard - self._credited > _CREDIT_AGAIN_S:
            self._send_credit()
        # The gap is still there: the RESUME, or what it brought, was lost too.
        if frame.sequence > self.call.receiver.next_sequence and self._heard - self._asked > _ASK_AGAIN_S:
            self._resume()

    def tell_first(self, tell: Callable[[float], None]) -> None:
        """Have the time told at which the first of the engine's bytes arrived, or arrives; once."""
        self._on_first = tell
        if self.first_at is not None:
            tell(self.first_at)

    def fail(self, error: RemoteError) -> None:
        """The answer will not be completed."""
        if self._error is None and not self._ended:
            self._error = error
            self.accepted.set()
            self._close(self.call.cancel())

    async def wait_head(self, timeout_s: float) -> None:
        """Wait until the engine answers."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.head is None:
                    if self._error is not None:
                        raise self._error
                    self._filled.clear()
                    await self._filled.wait()
        except TimeoutError as error:
            raise UpstreamTimeout(f"no answer of the engine within {timeout_s:g} s") from error

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Batches of the engine's bytes; asking for the next one gives credit for the last."""
        last: deque[bytes] = deque(maxlen=_LAST_EVENTS)
        while True:
            if self._chunks:
                batch, self._chunks = self._chunks, []
                last.extend(batch)
                yield batch
                if self._took(sum(map(len, batch))) and not self._closed:
                    self._send_credit()
            elif self._error is not None:
                self._window.close()
                raise self._error
            elif self._ended:
                self._window.close()
                if self.content_type.startswith("text/event-stream") and not (last and is_done(last[-1])):
                    if not is_finished(last):
                        raise StreamBroken("the engine's stream ended before the answer was complete")
                    yield [DONE]
                return
            else:
                self._filled.clear()
                await self._filled.wait()

    async def aclose(self) -> None:
        """Tell the worker to abort, unless the answer is complete."""
        self._close(self.call.cancel())
        self._window.close()

    def _took(self, size: int) -> bool:
        """Note that the reader took bytes; true when a CREDIT is due."""
        if self._window.took(size, time.monotonic()):
            self.call.receiver.widen(self._window.size)
        return self.call.receiver.consumed(size)

    def ask_again(self) -> None:
        """Ask for what may have been lost; after the broker was away, say."""
        self._resume()
        self._send_credit()

    def tick(self, now: float) -> None:
        """Look at the clock.

        Only frames that opened, in their order, are a sign of the worker: anybody on the way can repeat an old one.
        """
        patience, silent = self._channel.patience, now - self._proved
        if silent > patience.lost_after:
            self.fail(StreamBroken(f"no sign of the worker for {patience.lost_after:g} s"))
        elif now - self._progress > self._idle_timeout_s and not self._chunks:
            self.fail(UpstreamTimeout(f"the engine sent nothing for {self._idle_timeout_s:g} s"))
        elif silent > patience.resume_after:
            self.ask_again()
        elif now - self._credited > patience.credit_every:
            self._send_credit()

    def _resume(self) -> None:
        _RESUMES.add()
        self._asked = time.monotonic()
        self._send(self.call.resume())

    def _send_credit(self) -> None:
        _CREDITS.add()
        self._credited = time.monotonic()
        self._send(self.call.credit())

    def _send(self, frame: bytes) -> None:
        self._channel.send(self.call.lease_id, frame)

    def _close(self, last_word: bytes) -> None:
        """Make the worker forget the request: CANCEL, or the acknowledgement of its END."""
        self._filled.set()
        if not self._closed:
            self._closed = True
            self._send(last_word)
            self._channel.forget(self)


def _error_of(failure: Failure) -> RemoteError:
    match failure.code:
        case "worker_busy" | "worker_draining" | "worker_not_ready":
            return WorkerRefused(failure.message)
        case "body_incomplete":
            return UpstreamUnavailable(failure.message)
        case _:
            return StreamBroken(f"{failure.code}: {failure.message}")
