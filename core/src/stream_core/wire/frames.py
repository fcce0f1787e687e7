"""Frames of the sealed data plane, version 1: bytes in, frames out.

    offset  size  field
    0       1     version            1
    1       1     type               FrameType
    2       2     flags              bit 0: CONTINUED (the last chunk goes on in the next DATA frame)
    4       4     body length        bytes after the header
    8       16    request id         lease id on ANNOUNCE, STATUS and STOP, zero on HELLO, WELCOME, GOAWAY
    24      16    return address     the gateway's id; zero where no gateway is concerned
    40      8     sequence number    per request and direction, from 0
    48      ...   body               ciphertext, but on HELLO, WELCOME, GOAWAY and ANNOUNCE

All integers are big-endian. A WebSocket binary message and a NATS payload carry one or more whole frames. The
header is clear and is the associated data of the seal: whoever changes it breaks the tag.
"""

import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from stream_core.errors import FrameError
from stream_core.ids import ID_BYTES

VERSION: Final = 1
_HEADER: Final = struct.Struct(">BBHI16s16sQ")
HEADER_BYTES: Final = _HEADER.size
NOBODY: Final = bytes(ID_BYTES)
MAX_SEQUENCE: Final = 2**64 - 1

DEFAULT_MAX_FRAME: Final = 512 * 1024
"""Bytes of one frame, header included; half of what a NATS server takes by default."""


class FrameType(IntEnum):
    """What a frame means; the way it travels decides which keys seal it."""

    # gateway -> worker
    OPEN = 1
    BODY = 2
    CREDIT = 3
    RESUME = 4
    CANCEL = 5
    # worker -> gateway
    HEAD = 16
    DATA = 17
    END = 18
    ERROR = 19
    # worker <-> relay, in the clear
    HELLO = 32
    WELCOME = 33
    GOAWAY = 34
    # worker -> hpc_dispatch
    ANNOUNCE = 48
    STATUS = 49
    # hpc_dispatch -> worker
    STOP = 64


TO_WORKER: Final = frozenset({FrameType.OPEN, FrameType.BODY, FrameType.CREDIT, FrameType.RESUME, FrameType.CANCEL})
TO_GATEWAY: Final = frozenset({FrameType.HEAD, FrameType.DATA, FrameType.END, FrameType.ERROR})
TO_DISPATCH: Final = frozenset({FrameType.ANNOUNCE, FrameType.STATUS})
_TYPES: Final = {int(member): member for member in FrameType}


class Flag(IntFlag):
    """Bits of the flags field; unknown ones are an error, not an extension."""

    NONE = 0
    CONTINUED = 1


_KNOWN_FLAGS: Final = int(Flag.CONTINUED)


class Frame(NamedTuple):
    """One frame as read from the wire. `header` is its clear header, byte for byte."""

    type: FrameType
    flags: int
    request_id: bytes
    return_address: bytes
    sequence: int
    header: bytes
    body: bytes

    @property
    def wire(self) -> bytes:
        """The frame as it travels."""
        return self.header + self.body


def header(
    type_: FrameType,
    body_length: int,
    request_id: bytes,
    return_address: bytes,
    sequence: int,
    flags: int = 0,
) -> bytes:
    """Pack a clear header: 48 bytes.

    Args:
        type_: what the frame means.
        body_length: bytes that follow the header, the seal's tag included.
        request_id: 16 bytes.
        return_address: 16 bytes.
        sequence: 0 to 2**64 - 1.
        flags: `Flag` bits.
    """
    return _HEADER.pack(VERSION, type_, flags, body_length, request_id, return_address, sequence)


def encode(
    type_: FrameType,
    body: bytes,
    *,
    request_id: bytes = NOBODY,
    return_address: bytes = NOBODY,
    sequence: int = 0,
    flags: int = 0,
) -> bytes:
    """Pack a whole frame whose body needs no further seal."""
    return header(type_, len(body), request_id, return_address, sequence, flags) + body


def split(message: bytes, max_frame: int = DEFAULT_MAX_FRAME) -> list[Frame]:
    """Read all frames of one message.

    Args:
        message: one or more whole frames, nothing else.
        max_frame: bytes that one frame may have, header included.

    Returns:
        The frames in order, at least one.

    Raises:
        FrameError: empty or cut short, unknown version, type or flag, or a frame past the limit. Nothing of a
            message that holds one bad frame is used.
    """
    frames = []
    offset, size = 0, len(message)
    while True:
        if size - offset < HEADER_BYTES:
            raise FrameError(f"{size - offset} bytes left in a message, a header has {HEADER_BYTES}")
        version, type_, flags, length, request_id, return_address, sequence = _HEADER.unpack_from(message, offset)
        if version != VERSION:
            raise FrameError(f"protocol version {version}, only {VERSION} is spoken here")
        known = _TYPES.get(type_)
        if known is None:
            raise FrameError(f"unknown frame type {type_}")
        if flags & ~_KNOWN_FLAGS:
            raise FrameError(f"unknown flags {flags:#06x}")
        if HEADER_BYTES + length > max_frame:
            raise FrameError(f"frame of {HEADER_BYTES + length:,} bytes, at most {max_frame:,}")
        start = offset + HEADER_BYTES
        end = start + length
        if end > size:
            raise FrameError(f"frame of {HEADER_BYTES + length:,} bytes cut after {size - offset:,}")
        frames.append(
            Frame(known, flags, request_id, return_address, sequence, message[offset:start], message[start:end])
        )
        if end == size:
            return frames
        offset = end


def join(frames: Iterable[bytes], max_message: int) -> list[bytes]:
    """Pack whole frames into as few messages as fit, in order.

    Args:
        frames: encoded frames, each at most `max_message` bytes.
        max_message: bytes of one message.
    """
    messages: list[bytes] = []
    batch: list[bytes] = []
    room = max_message
    for frame in frames:
        if len(frame) > room and batch:
            messages.append(b"".join(batch))
            batch, room = [], max_message
        batch.append(frame)
        room -= len(frame)
    if batch:
        messages.append(b"".join(batch))
    return messages
