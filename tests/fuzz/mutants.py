"""Mutants of real frames: whatever somebody on the way can make of what he has seen. Seeded, so a failure repeats."""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Final

from stream_core.wire.frames import HEADER_BYTES, FrameType

_TYPES: Final = [int(type_) for type_ in FrameType]
_EDGES_32: Final = (0, 1, 15, 16, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
_EDGES_64: Final = (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)


class Mutator:
    """Draws mutants.

    Args:
        seed: of all chance in it.
        seen: whole frames of the session under attack, all of them delivered before.
        foreign: whole frames of other sessions, well sealed, for others.
    """

    def __init__(self, seed: int, seen: list[bytes], foreign: list[bytes]) -> None:
        self._rng = random.Random(seed)  # noqa: S311  (it must repeat)
        self._seen = seen
        self._foreign = foreign
        self._kinds: list[Callable[[], bytes]] = [
            self.flip,
            self.flips,
            self.type_swap,
            self.flags,
            self.number,
            self.length_lie,
            self.huge_length,
            self.version,
            self.foreign_id,
            self.truncate,
            self.extend,
            self.splice,
            self.transplant,
            self.replay,
            self.foreign,
            self.several,
            self.unsealed,
            self.junk,
        ]

    def draw(self, count: int) -> Iterator[tuple[str, bytes]]:
        """So many (kind, message)."""
        for _ in range(count):
            make = self._rng.choice(self._kinds)
            yield make.__name__, make()

    def flip(self) -> bytes:
        """One bit of one frame."""
        frame = bytearray(self._one())
        frame[self._rng.randrange(len(frame))] ^= 1 << self._rng.randrange(8)
        return bytes(frame)

    def flips(self) -> bytes:
        """Some bytes of the ciphertext or of the header, but not its length."""
        frame = bytearray(self._one())
        for _ in range(self._rng.randint(1, 12)):
            place = self._rng.choice([1, *range(8, len(frame))])
            frame[place] ^= self._rng.randint(1, 255)
        return bytes(frame)

    def type_swap(self) -> bytes:
        """Another known type, or any."""
        frame = bytearray(self._one())
        frame[1] = self._other(frame[1], _TYPES if self._rng.random() < 0.8 else range(256))
        return bytes(frame)

    def flags(self) -> bytes:
        """Other flags."""
        frame = self._one()
        (old,) = struct.unpack_from(">H", frame, 2)
        return frame[:2] + struct.pack(">H", self._other(old, [0, 1, 2, 0x8000, 0xFFFF])) + frame[4:]

    def number(self) -> bytes:
        """Another sequence number: near by, or at the edges of 64 bits."""
        frame = self._one()
        (old,) = struct.unpack_from(">Q", frame, 40)
        near = [max(0, old - 1), old + 1, old + 2, old + 3, *_EDGES_64]
        return frame[:40] + struct.pack(">Q", self._other(old, near)) + frame[48:]

    def length_lie(self) -> bytes:
        """A length that is not the body's."""
        frame = self._one()
        (old,) = struct.unpack_from(">I", frame, 4)
        lie = self._other(old, [max(0, old - 1), old + 1, old // 2, self._rng.randrange(old + 64)])
        return frame[:4] + struct.pack(">I", lie) + frame[8:]

    def huge_length(self) -> bytes:
        """A length at the edges of 32 bits."""
        frame = self._one()
        (old,) = struct.unpack_from(">I", frame, 4)
        return frame[:4] + struct.pack(">I", self._other(old, _EDGES_32)) + frame[8:]

    def version(self) -> bytes:
        """Another protocol version."""
        return bytes([self._other(1, range(256))]) + self._one()[1:]

    def foreign_id(self) -> bytes:
        """Another request or return address."""
        frame = bytearray(self._one())
        start = self._rng.choice([8, 24])
        value = self._rng.choice(
            [bytes(16), b"\xff" * 16, self._rng.randbytes(16), self._rng.choice(self._foreign)[8:24]]
        )
        if frame[start : start + 16] == value:
            value = self._rng.randbytes(16)
        frame[start : start + 16] = value
        return bytes(frame)

    def truncate(self) -> bytes:
        """The first part of a frame; half of the time the length agrees."""
        frame = self._one()
        cut = frame[: self._rng.randrange(len(frame))]
        if len(cut) >= HEADER_BYTES and self._rng.random() < 0.5:
            cut = cut[:4] + struct.pack(">I", len(cut) - HEADER_BYTES) + cut[8:]
        return cut

    def extend(self) -> bytes:
        """More bytes behind; half of the time the length agrees."""
        frame = self._one() + self._rng.randbytes(self._rng.randint(1, 80))
        if self._rng.random() < 0.5:
            frame = frame[:4] + struct.pack(">I", len(frame) - HEADER_BYTES) + frame[8:]
        return frame

    def splice(self) -> bytes:
        """The first half of one frame, the second of another."""
        one, other = self._one(), self._rng.choice(self._seen + self._foreign)
        at = self._rng.randrange(1, min(len(one), len(other)))
        return one[:at] + other[at:]

    def transplant(self) -> bytes:
        """The header of one frame, the body of another, and a length that agrees."""
        one, body = self._one(), self._rng.choice(self._seen + self._foreign)[HEADER_BYTES:]
        return one[:4] + struct.pack(">I", len(body)) + one[8:HEADER_BYTES] + body

    def replay(self) -> bytes:
        """A frame that was there before, as it was."""
        return self._one()

    def foreign(self) -> bytes:
        """A frame that is well sealed for somebody else."""
        return self._rng.choice(self._foreign)

    def several(self) -> bytes:
        """Old frames in any order, in one message."""
        return b"".join(self._rng.choices(self._seen + self._foreign, k=self._rng.randint(2, 6)))

    def unsealed(self) -> bytes:
        """A well-formed header and a body that nobody sealed."""
        body = self._rng.choice(
            [b"", b"{}", b'{"x":' + b"[" * 5000, b'{"status":200,"content_type":"x"}', self._rng.randbytes(40)]
        )
        return self._one()[:4] + struct.pack(">I", len(body)) + self._one()[8:HEADER_BYTES] + body

    def junk(self) -> bytes:
        """Any bytes."""
        return self._rng.randbytes(self._rng.randrange(200))

    def _one(self) -> bytes:
        return self._rng.choice(self._seen)

    def _other(self, old: int, choices: "list[int] | range | tuple[int, ...]") -> int:
        return self._rng.choice([choice for choice in choices if choice != old])
