"""Network namespaces: make two, join them by the userspace WAN, be inside one, remove all of it again."""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SITE_ADDRESS = "10.77.0.1"
CENTRE_ADDRESS = "10.77.0.2"
_CLONE_NEWNET = 0x40000000
_RUN = Path("/run/netns")


def why_not() -> str | None:
    """Why namespaces can't be made here; None when they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "no `ip` here (Debian: iproute2)"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun here"
    probe = f"stream-probe-{secrets.token_hex(4)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return None


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Let this thread be in a namespace: sockets that it makes and processes that it starts belong there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(_RUN / namespace, os.O_RDONLY)
        try:
            _enter(libc, there)
            yield
        finally:
            os.close(there)
            _enter(libc, home)
    finally:
        os.close(home)


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Wan:
    """Two namespaces and the router between them.

    Attributes:
        site: name of the cluster's namespace, `SITE_ADDRESS`; nothing can connect to it from outside.
        centre: name of the institution's namespace, `CENTRE_ADDRESS`.
    """

    site: str
    centre: str
    router: subprocess.Popen[str]

    def command(self, line: str) -> dict[str, Any]:
        """Ask the router; see its docstring."""
        if self.router.stdin is None or self.router.stdout is None:
            raise RuntimeError("the router has no pipes")
        self.router.stdin.write(f"{line}\n")
        self.router.stdin.flush()
        said: dict[str, Any] = json.loads(self.router.stdout.readline())
        return said


@contextlib.contextmanager
def wan(round_trip_ms: float) -> Iterator[Wan]:
    """Make both namespaces and the WAN between them, until the block ends.

    Raises:
        RuntimeError: the router did not start.
    """
    run = f"stream-{os.getpid()}-{secrets.token_hex(3)}"
    names = (f"{run}-site", f"{run}-centre")
    with contextlib.ExitStack() as stack:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        router = stack.enter_context(_router(*names, round_trip_ms / 2))
        yield Wan(*names, router)


@contextlib.contextmanager
def _router(site: str, centre: str, one_way_ms: float) -> Iterator[subprocess.Popen[str]]:
    arguments = [site, SITE_ADDRESS, centre, CENTRE_ADDRESS, str(one_way_ms)]
    process = subprocess.Popen(
        [sys.executable, "-m", "wan.router", *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the router did not start (exit code {process.wait(5)})")
        yield process
    finally:
        # Its input's end is its end; so it ends too when this process is killed.
        process.communicate(timeout=10)
