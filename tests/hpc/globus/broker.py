"""A real RabbitMQ node for the stand-in: own state, free loopback ports, ended by its own process id, epmd too."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from stream_core.testing.broker import free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's, without its wrapper: that one insists on a user and on /var."""
EPMD = Path("/usr/bin/epmd")
_READY_S = 180.0
_POLL_S = 0.05


def missing() -> list[str]:
    """Name the packages that a node needs and this machine has not."""
    return [] if SERVER.exists() and EPMD.exists() else ["rabbitmq-server"]


class RabbitNode:
    """One node; it comes back with its queues, messages and users on the same ports.

    Args:
        folder: for its configuration, state and log.
        port: for AMQP.
    """

    def __init__(self, folder: Path, *, port: int) -> None:
        self._folder = folder
        self.port = port
        self._distribution, self._names, self._management = (free_port() for _ in range(3))
        self.user, self.password = "service", secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._env = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "standin@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "state"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Else a shell stands between us and the node, and its end is not the node's.
            "RUNNING_UNDER_SYSTEMD": "1",
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plugins").write_text("[rabbitmq_management].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management}\n"
            f"default_user = {self.user}\ndefault_pass = {self.password}\n"
            "management_agent.disable_metrics_collector = true\n"
        )
        (folder / "rabbitmq.conf").chmod(0o600)

    @property
    def management_url(self) -> str:
        """Of its HTTP interface, which makes users."""
        return f"http://127.0.0.1:{self._management}/api"

    def start(self) -> None:
        """Start it and wait until it takes commands.

        Raises:
            RuntimeError: it did not; the message holds its output.
        """
        self._epmd = self._spawn([str(EPMD), "-port", str(self._names), "-address", "127.0.0.1"])
        self._process = self._spawn([str(SERVER)])
        deadline = time.monotonic() + _READY_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"rabbitmq-server is not ready:\n{(self._folder / 'output').read_text()}")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        env: Mapping[str, str] = self._env
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                command, env=env, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def _answers(self) -> bool:
        try:
            answer = requests.get(f"{self.management_url}/overview", auth=(self.user, self.password), timeout=5)
        except requests.ConnectionError:
            return False
        return answer.status_code == 200

    def _end(self, number: int) -> None:
        for process, how in ((self._process, number), (self._epmd, signal.SIGKILL)):
            if process is not None:
                process.send_signal(how)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._process = self._epmd = None
