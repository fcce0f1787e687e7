"""What a user of the broker may do, found out by trying: NATS' own text protocol over a socket, nothing is published.

A subscription is tried and taken back. The table is that of `broker.configuration`: a user that hears what is not its
own could read who talks to whom, so both sides are looked at.
"""

import json
import socket
from types import TracebackType
from typing import Any, Final, Self

from stream_core.wire import subjects

_TIMEOUT_S: Final = 3.0
_EVERYTHING: Final = ">"
_MINE: Final = {
    "gateway": subjects.ALL_GATEWAYS,
    "relay": subjects.ALL_LEASES_IN,
    "hpc_dispatch": subjects.ALL_LEASES_OUT,
    "backup": "_INBOX.backup.>",
}
_OTHERS: Final = {
    "gateway": (_EVERYTHING, subjects.ALL_LEASES_IN, subjects.ALL_LEASES_OUT),
    "relay": (_EVERYTHING, subjects.ALL_GATEWAYS, subjects.ALL_LEASES_OUT),
    "hpc_dispatch": (_EVERYTHING, subjects.ALL_GATEWAYS, subjects.ALL_LEASES_IN),
    "backup": (_EVERYTHING, subjects.ALL_GATEWAYS, subjects.ALL_LEASES_IN, subjects.ALL_LEASES_OUT),
}


class NotThere(Exception):
    """The broker does not let this user in, or is none."""


class Broker:
    """One connection of one user.

    Args:
        host: of the broker.
        port: of the broker.
        user: as whom.
        password: its.

    Raises:
        NotThere: it is no NATS server, or refuses the user.
        OSError: no connection.
    """

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=_TIMEOUT_S)
        self._lines = self._socket.makefile("rb")
        self._numbers = 0
        try:
            verb, _, body = self._line().partition(" ")
            self._info: dict[str, Any] = json.loads(body) if verb == "INFO" else {}
            login = {
                "user": user,
                "pass": password,
                "verbose": True,
                "pedantic": False,
                "lang": "python",
                "version": "0",
            }
            refused = self._ask(f"CONNECT {json.dumps(login)}")
        except (ValueError, OSError) as error:
            self.close()
            raise NotThere(f"no answer as of a NATS server: {error}") from error
        if refused:
            self.close()
            raise NotThere(refused)

    @property
    def version(self) -> str:
        """As it greets."""
        return str(self._info.get("version", "unknown"))

    def may_hear(self, subject: str) -> bool:
        """Try whether this user may subscribe."""
        self._numbers += 1
        refused = self._ask(f"SUB {subject} {self._numbers}")
        self._ask(f"UNSUB {self._numbers}")
        return not refused

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, line: str) -> str:
        """Say one line, and another one that is always answered; what was refused, or nothing."""
        self._socket.sendall(f"{line}\r\nPING\r\n".encode())
        refused = ""
        try:
            while (heard := self._line()) != "PONG":
                if heard.startswith("-ERR"):
                    refused = heard.removeprefix("-ERR").strip(" '")
        except OSError:
            if not refused:  # else it has said why it hangs up
                raise
        return refused

    def _line(self) -> str:
        line = self._lines.readline(64 * 1024).decode("utf-8", "replace")
        if not line:
            raise OSError("the broker closed the connection")
        return line.rstrip()


def faults_of(user: str, broker: Broker) -> list[str]:
    """List what a user may not and should, or may and should not.

    Args:
        user: of `home.NATS_USERS`.
        broker: logged in as that user.
    """
    mine = _MINE[user]
    faults = [] if broker.may_hear(mine) else [f"may not hear {mine}"]
    return faults + [f"may hear {subject}" for subject in _OTHERS[user] if broker.may_hear(subject)]
