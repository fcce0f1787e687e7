"""What the userspace WAN does to one packet: let it pass, lose it, or refuse it; and when it arrives. Pure."""

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

_TCP: Final = 6
_ICMP: Final = 1
_SYN: Final = 0x02
_ACK: Final = 0x10
_LEAST_HEADER: Final = 20
_TCP_FLAGS_AT: Final = 13


class Fate(Enum):
    """What becomes of a packet."""

    PASSES = "passed"
    IS_LOST = "lost"
    IS_REFUSED = "refused"


def opens_connection(packet: bytes) -> bool:
    """Whether an IPv4 packet opens something new: a TCP SYN without ACK, or anything that is neither TCP nor ICMP.

    A later fragment opens nothing by itself: without its first one it is never put together.
    """
    if len(packet) < _LEAST_HEADER or packet[0] >> 4 != 4:
        return True
    if packet[9] == _ICMP:
        return False
    header, fragment = (packet[0] & 0x0F) * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF
    if packet[9] != _TCP:
        return True
    if fragment:
        return False
    if len(packet) <= header + _TCP_FLAGS_AT:
        return True
    return packet[header + _TCP_FLAGS_AT] & (_SYN | _ACK) == _SYN


class DelayLine:
    """One direction of the WAN: a constant delay, so that nothing is reordered.

    Args:
        delay_s: one way.
        chance: uniform in [0, 1), one number for each packet.
        guarded: refuse what opens a connection.
    """

    def __init__(self, delay_s: float, chance: Callable[[], float], *, guarded: bool) -> None:
        self._delay_s = delay_s
        self._chance = chance
        self._guarded = guarded
        self._flying: deque[tuple[float, bytes]] = deque()
        self.loss = 0.0
        """Share of packets that vanish."""
        self.fates = dict.fromkeys(Fate, 0)
        self.under_way = self.peak = 0
        """Bytes between the two ends now, and the most there have been at once."""

    @property
    def next_arrival(self) -> float | None:
        """When the next packet arrives; None when none is under way."""
        return self._flying[0][0] if self._flying else None

    def take(self, packet: bytes, now: float) -> Fate:
        """Send a packet on its way, or not."""
        if self._guarded and opens_connection(packet):
            fate = Fate.IS_REFUSED
        elif self._chance() < self.loss:
            fate = Fate.IS_LOST
        else:
            fate = Fate.PASSES
            self._flying.append((now + self._delay_s, packet))
            self.under_way += len(packet)
            self.peak = max(self.peak, self.under_way)
        self.fates[fate] += 1
        return fate

    def arrived(self, now: float) -> list[bytes]:
        """The packets that are there by now, in order."""
        there = []
        while self._flying and self._flying[0][0] <= now:
            there.append(self._flying.popleft()[1])
            self.under_way -= len(there[-1])
        return there
