"""Real nats-server processes with the manifests' own configuration files."""

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from deploy.mapping import Places

from stream_core.testing.broker import SERVER

_READY_S = 30.0
_POLL_S = 0.05


def loopback_net() -> str:
    """Choose "127.x.y." that nobody uses: each run has addresses of its own, so that ports can be the manifests'."""
    for _ in range(100):
        draw = Random()  # noqa: S311  (no secret; the system's own seed)
        net = f"127.{draw.randint(1, 254)}.{draw.randint(1, 254)}."
        with contextlib.suppress(OSError), socket.create_server((f"{net}1", 0)):
            return net
    raise RuntimeError("no loopback address can be used here")


@dataclass
class Node:
    """One running broker."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str) -> bytes:
        """Read from its monitoring."""
        with urllib.request.urlopen(f"http://{self.address}:8222{path}", timeout=5) as answer:
            return answer.read()


@contextlib.contextmanager
def run_node(
    folder: Path, config: Path, secrets: Path, *, name: str, address: str, hosts: Mapping[str, str]
) -> Iterator[Node]:
    """Start one with a manifest's file and `make k8s-secrets`'s, until the block ends.

    Args:
        folder: its own.
        config: nats.conf.
        secrets: folder of its Secret.
        name: of its pod.
        address: of its pod.
        hosts: addresses of the others, by name.
    """
    places = Places(folder, address, ("/etc/nats", "/data", "/tmp"), hosts)  # noqa: S108  (the container's)
    for mount in places.mounts:
        places.path(mount).mkdir(parents=True)
    for secret in secrets.iterdir():
        shutil.copy2(secret, places.path("/etc/nats"))
    mapped = places.path("/etc/nats") / "nats.conf"
    mapped.write_text(places.text(config.read_text()))
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [SERVER, "-c", mapped],
            env={"POD_NAME": name},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Node(address, process, log)
    finally:
        process.terminate()
        process.wait(10)


def wait_healthy(node: Node) -> None:
    """Wait until it says that it is."""
    deadline = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            node.ask("/healthz")
            return
        if node.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nats-server is not ready:\n{node.log.read_text()}")
        time.sleep(_POLL_S)
