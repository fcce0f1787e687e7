"""A network of the tests' own: what is fixed elsewhere (localhost:5000, AMQP on 443) is free in it; nothing leaves it.

`unshare` moves only the calling thread; processes and threads that it starts from then on are in the new network, too.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000  # sched.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR = 0x8913, 0x8914, 0x8916  # linux/sockios.h
_IFF_UP = 1
_FLAGS, _ADDRESS = "16sh22x", "16shH4s16x"
"""A struct ifreq with flags, with an IPv4 address."""


def why_not() -> str:
    """Say why there can't be one; empty when there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    return "" if os.geteuid() == 0 else "a network namespace needs root"


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """Enter a new network namespace, with loopback alone, until the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Of this thread: the process's link shows its first thread's.
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _checked(libc.unshare(_CLONE_NEWNET), "unshare")
        _up("lo")
        # With nothing but loopback, resolvers say that there is no IPv4 (AI_ADDRCONFIG): one address for documentation.
        _address("lo:1", "192.0.2.1")
        yield
    finally:
        _checked(libc.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)


def _up(interface: str) -> None:
    with socket.socket() as any_socket:
        known = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack(_FLAGS, interface.encode(), 0))
        flags = struct.unpack(_FLAGS, known)[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_FLAGS, interface.encode(), flags | _IFF_UP))


def _address(interface: str, address: str) -> None:
    packed = struct.pack(_ADDRESS, interface.encode(), socket.AF_INET, 0, socket.inet_aton(address))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFADDR, packed)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
