"""The WAN's own rules as tables: what opens a connection, what arrives when."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.packets import DelayLine, Fate, opens_connection

SYN, ACK, RST, PSH = 0x02, 0x10, 0x04, 0x08


def packet(*, protocol: int = 6, flags: int = 0, fragment: int = 0, options: int = 0) -> bytes:
    first = struct.pack(">BBHHHBBH8x", 0x45 + options, 0, 40, 1, fragment, 64, protocol, 0) + bytes(4 * options)
    return first + struct.pack(">HHIIBBHHH", 40000, 443, 1, 0, 0x50, flags, 1000, 0, 0)


@pytest.mark.parametrize(
    ("sent", "opens"),
    [
        (packet(flags=SYN), True),
        (packet(flags=SYN, options=3), True),
        (packet(flags=SYN | ACK), False),
        (packet(flags=ACK | PSH), False),
        (packet(flags=RST), False),
        (packet(protocol=17), True),
        (packet(protocol=1), False),
        (packet(flags=SYN, fragment=5), False),
        (packet(protocol=17, fragment=5), True),
        (packet(flags=SYN)[:24], True),
        (b"\x60" + bytes(60), True),
        (b"", True),
    ],
    ids=[
        *("syn", "syn after options", "syn ack", "data", "reset", "udp", "icmp", "later fragment", "udp fragment"),
        *("cut short", "ipv6", "empty"),
    ],
)
def test_what_opens_a_connection(sent, opens):
    """The firewall refuses the packets that begin something, and lets pass what belongs to something."""
    assert opens_connection(sent) is opens


def test_firewall_guards_one_way_only():
    """What is refused towards the site passes from it, and both are counted."""
    inward, outward = (DelayLine(0.04, lambda: 0.5, guarded=guarded) for guarded in (True, False))
    assert inward.take(packet(flags=SYN), 0.0) is Fate.IS_REFUSED
    assert inward.take(packet(flags=ACK), 0.0) is Fate.PASSES
    assert outward.take(packet(flags=SYN), 0.0) is Fate.PASSES
    assert inward.fates == {Fate.PASSES: 1, Fate.IS_LOST: 0, Fate.IS_REFUSED: 1}


@given(st.lists(st.tuples(st.floats(0, 0.01), st.floats(0, 0.999)), max_size=40), st.floats(0, 1))
def test_arrive_in_order_after_the_delay_or_never(sent, loss):
    """Each packet arrives once, in order, one delay after it was sent; just the share below `loss` does not."""
    chances = iter([chance for _, chance in sent])
    line = DelayLine(0.04, lambda: next(chances), guarded=False)
    line.loss = loss
    now, expected = 0.0, []
    for number, (pause, chance) in enumerate(sent):
        now += pause
        line.take(bytes([number]), now)
        if chance >= loss:
            expected.append((now + 0.04, bytes([number])))
    arrived = []
    while (at := line.next_arrival) is not None:
        arrived += [(at, one) for one in line.arrived(at)]
    assert [one for _, one in arrived] == [one for _, one in expected]
    assert [at for at, _ in arrived] == [at for at, _ in expected]
    assert line.fates[Fate.IS_LOST] == len(sent) - len(expected)


def test_bytes_under_way():
    """What has been sent and has not arrived is counted, and the most of it at once; what is lost is not."""
    line = DelayLine(0.04, lambda: 0.5, guarded=False)
    for now, size in ((0.0, 10), (0.01, 20), (0.03, 30)):
        line.take(bytes(size), now)
    line.arrived(0.05)
    line.loss = 1
    line.take(bytes(500), 0.06)
    assert (line.under_way, line.peak) == (30, 60)
