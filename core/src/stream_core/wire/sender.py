"""The worker's end of one answer: what may be sent, what must be kept, what goes out again.

Theory: credit-based flow control with cumulative acknowledgement, and go-back-N on request.

    state    | head  data  alive | end  fail | credit        resume
    ---------+-------------------+-----------+---------------------------
    OPEN     | OPEN              | CLOSED    | frees frames  sends again
    CLOSED   | illegal           | illegal   | frees frames  sends again
    FINISHED | illegal           | illegal   | nothing       nothing

CLOSED becomes FINISHED when the last frame is acknowledged. An illegal call raises and changes nothing.

Memory: frames are kept until acknowledged. The driver stops reading the engine while `writable` is false, so what
is kept follows the credit: an honest reader grants what it took plus its window, and took no more than it
acknowledged, so that is one window plus one payload. Whatever is granted, it is at most `most_kept` plus one payload:
a credit without acknowledgement buys no more. Sealing is an argument: this module has no keys.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from stream_core.errors import FrameError
from stream_core.wire.frames import Flag, FrameType
from stream_core.wire.payloads import Credit, End, Failure, Head, Resume, dump, dump_chunks

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of chunks in one DATA frame; a longer chunk goes on in the next frame, marked CONTINUED."""

Chunk = bytes | memoryview
"""Some of the engine's bytes."""

Seal = Callable[[FrameType, bytes, int], bytes]
"""(type, plaintext, flags) -> the frame as it travels; counts the sequence number from 0."""


class SenderState(Enum):
    """See the table above."""

    OPEN = "open"
    CLOSED = "closed"
    FINISHED = "finished"


class Sender:
    """Sending end of one request's answer.

    Args:
        seal: seals the next frame.
        window: payload bytes that may be sent before the first CREDIT.
        most_kept: payload bytes that may be unacknowledged at any time, whatever the credit; not below the window.
    """

    def __init__(self, seal: Seal, window: int, most_kept: int = 0) -> None:
        self._seal = seal
        self._most_kept = max(window, most_kept)
        self._limit = window
        self._sent = 0
        self._acknowledged = 0
        self._sizes: deque[int] = deque()
        self._next = 0
        self.first_kept = 0
        self._kept: deque[bytes] = deque()
        self.state = SenderState.OPEN

    @property
    def writable(self) -> bool:
        """Whether the window has room; while false, the engine is not read."""
        return self._sent < self._limit and self._sent - self._acknowledged < self._most_kept

    @property
    def kept(self) -> int:
        """Frames not yet acknowledged."""
        return len(self._kept)

    def head(self, head: Head) -> bytes:
        """The engine's status and content type: one frame."""
        return self._frame(FrameType.HEAD, dump(head))

    def data(self, chunks: deque[Chunk]) -> list[bytes]:
        """The engine's bytes, as far as the window allows: as few frames as the payload limit does.

        Args:
            chunks: each an event of the stream, or a piece of a body. What is sent is taken from the left; what is
                left must be offered again when `writable`, before anything newer.
        """
        frames = []
        while chunks and self.writable:
            payload, flags, size = _take_payload(chunks)
            frames.append(self._frame(FrameType.DATA, dump_chunks(payload), flags, size))
            self._sent += size
        return frames

    def alive(self) -> bytes:
        """A DATA frame without chunks: the request is known and the worker lives. Costs no credit."""
        return self._frame(FrameType.DATA, b"")

    def end(self) -> bytes:
        """The answer is complete."""
        frame = self._frame(FrameType.END, dump(End(bytes=self._sent)))
        self.state = SenderState.CLOSED
        return frame

    def fail(self, failure: Failure) -> bytes:
        """The answer is not complete and will not be."""
        frame = self._frame(FrameType.ERROR, dump(failure))
        self.state = SenderState.CLOSED
        return frame

    def credit(self, credit: Credit) -> None:
        """Take an acknowledgement and a new limit; an old one changes nothing.

        Raises:
            FrameError: it acknowledges what was never sent.
        """
        if credit.received > self._next:
            raise FrameError(f"CREDIT for {credit.received:,} frames, {self._next:,} were sent")
        while self.first_kept < credit.received:
            self._kept.popleft()
            self._acknowledged += self._sizes.popleft()
            self.first_kept += 1
        self._limit = max(self._limit, credit.limit)
        if self.state is SenderState.CLOSED and not self._kept:
            self.state = SenderState.FINISHED

    def resume(self, resume: Resume) -> list[bytes]:
        """Everything from a sequence number on, the very bytes that were sent before.

        Raises:
            FrameError: those frames were never sent, or are acknowledged and gone.
        """
        if not self.first_kept <= resume.sequence <= self._next:
            raise FrameError(f"RESUME from {resume.sequence:,}, kept are {self.first_kept:,} to {self._next:,}")
        skip = resume.sequence - self.first_kept
        return [frame for index, frame in enumerate(self._kept) if index >= skip]

    def _frame(self, type_: FrameType, plaintext: bytes, flags: int = 0, size: int = 0) -> bytes:
        if self.state is not SenderState.OPEN:
            raise FrameError(f"{type_.name} after the answer was closed")
        frame = self._seal(type_, plaintext, flags)
        self._kept.append(frame)
        self._sizes.append(size)
        self._next += 1
        return frame


def _take_payload(chunks: deque[Chunk]) -> tuple[list[Chunk], int, int]:
    """Take at most MAX_PAYLOAD bytes of chunks, with flags and size; only a chunk that is longer by itself is cut."""
    size = sum(map(len, chunks))
    if size <= MAX_PAYLOAD:
        batch = list(chunks)
        chunks.clear()
        return batch, Flag.NONE, size
    batch, size = [], 0
    while len(chunks[0]) <= MAX_PAYLOAD - size:
        size += len(chunks[0])
        batch.append(chunks.popleft())
    if batch:
        return batch, Flag.NONE, size
    whole = memoryview(chunks.popleft())
    chunks.appendleft(whole[MAX_PAYLOAD:])
    return [whole[:MAX_PAYLOAD]], Flag.CONTINUED, MAX_PAYLOAD
