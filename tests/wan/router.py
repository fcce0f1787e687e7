"""The userspace WAN as a process: moves packets between one TUN device in each of two network namespaces.

    python -m wan.router SITE SITE_ADDRESS CENTRE CENTRE_ADDRESS ONE_WAY_MS     (as root)

It delays both ways, and lets nothing open a connection to the site: its firewall. Commands come as lines on standard
input, each is answered by one JSON line; at the end of the input the process ends, so it never outlives its test.

    loss SHARE     both ways, from now on
    counts         {"to_site": {"passed", "lost", "refused"}, "to_centre": {...}}
    peak           {"to_site": bytes that were under way at once, at most, since this was last asked, "to_centre": ...}
"""

import contextlib
import fcntl
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

from wan.namespaces import inside
from wan.packets import DelayLine

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_MTU = 1400
_QUEUE = 4000
_BURST = 64


def open_tun(namespace: str, address: str, peer: str) -> int:
    """Make the device `wan0` in a namespace, with one address and a route to the other end."""
    with inside(namespace):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wan0", _IFF_TUN_NO_PI))
    for command in (
        ["address", "add", f"{address}/32", "peer", peer, "dev", "wan0"],
        # Without an IPv6 address the device says nothing by itself: what the counts show was sent by somebody.
        ["link", "set", "wan0", "addrgenmode", "none"],
        ["link", "set", "wan0", "mtu", str(_MTU), "txqueuelen", str(_QUEUE), "up"],
    ):
        subprocess.run(["ip", "-n", namespace, *command], check=True)
    return device


def answer(command: str, to_site: DelayLine, to_centre: DelayLine) -> dict[str, object]:
    """Obey one command."""
    match command.split():
        case ["loss", share]:
            to_site.loss = to_centre.loss = float(share)
            return {"loss": to_site.loss}
        case ["counts"]:
            lines = {"to_site": to_site, "to_centre": to_centre}
            return {name: {fate.value: n for fate, n in line.fates.items()} for name, line in lines.items()}
        case ["peak"]:
            peaks: dict[str, object] = {"to_site": to_site.peak, "to_centre": to_centre.peak}
            to_site.peak, to_centre.peak = to_site.under_way, to_centre.under_way
            return peaks
        case _:
            return {"error": f"no such command: {command!r}"}


def pass_on(device: int, line: DelayLine) -> None:
    """Take what a namespace sends, some packets at a time, so that neither direction starves."""
    for _ in range(_BURST):
        try:
            packet = os.read(device, 2048)
        except BlockingIOError:
            return
        line.take(packet, time.monotonic())


def deliver(device: int, line: DelayLine) -> None:
    """Hand over what has arrived."""
    for packet in line.arrived(time.monotonic()):
        with contextlib.suppress(BlockingIOError):  # a device whose queue is full drops, as a router does
            os.write(device, packet)


def main() -> None:
    """Route until the input ends."""
    site, site_address, centre, centre_address, one_way_ms = sys.argv[1:6]
    chance = random.Random(1).random  # noqa: S311  (which packets are lost is to be the same in each run)
    delay_s = float(one_way_ms) / 1000
    to_site = DelayLine(delay_s, chance, guarded=True)
    to_centre = DelayLine(delay_s, chance, guarded=False)
    at_site = open_tun(site, site_address, centre_address)
    at_centre = open_tun(centre, centre_address, site_address)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        arrivals = [line.next_arrival for line in (to_site, to_centre) if line.next_arrival is not None]
        wait_s = max(0.0, min(arrivals) - time.monotonic()) if arrivals else None
        readable, _, _ = select.select([at_site, at_centre, sys.stdin], [], [], wait_s)
        if at_site in readable:
            pass_on(at_site, to_centre)
        if at_centre in readable:
            pass_on(at_centre, to_site)
        deliver(at_site, to_site)
        deliver(at_centre, to_centre)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            sys.stdout.write(json.dumps(answer(line, to_site, to_centre)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
