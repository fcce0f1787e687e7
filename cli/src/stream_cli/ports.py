"""Ports of this machine: free ones for the programs, and whether the gateway's is free."""

import contextlib
import random
import socket
from typing import Final

from stream_core.errors import ConfigError

_RANGE: Final = range(20_000, 32_000)
"""Below what systems give to outgoing connections: one of those might take a port that we chose and nobody has yet."""
_ATTEMPTS: Final = 1_000


def free_ports(count: int, *, host: str = "127.0.0.1") -> list[int]:
    """Choose different free ports; they stay free until somebody else binds them.

    Raises:
        ConfigError: there are not enough.
    """
    chosen: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.sample(_RANGE, _ATTEMPTS):
            if len(chosen) == count:
                break
            holder = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                holder.bind((host, port))
            except OSError:
                continue
            chosen.append(port)
    if len(chosen) < count:
        raise ConfigError(f"only {len(chosen)} of {_ATTEMPTS} tried ports on {host} are free, {count} are needed")
    return chosen


def require_free(host: str, port: int) -> None:
    """Check that the gateway will be able to listen.

    Raises:
        ConfigError: it won't; the message names the port and the option.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"can't listen on {host} port {port} ({reason}); choose another one with --port or STREAM_PORT"
        ) from error
