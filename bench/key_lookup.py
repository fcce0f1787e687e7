"""How long a gateway takes to refuse a key, by how much of it is right: medians against noise; JSON last.

    make bench-keys

A lookup that compares letter by letter, or looks up a prefix first, is slower for a key that begins rightly. Here each
kind of wrong key is sent 4,000 times, in random order over one connection, each time another one; of two kinds the
difference of the medians stands beside that of two halves of the same kind, with Mann-Whitney's p. Nothing passes or
fails: a machine that does other work is slower now and then, and not for one kind alone.
"""

import json
import math
import random
import secrets
import socket
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gateway.stage import Gateway, Stage

from stream_core.api_keys import new_key

EACH, WARM, KEYS = 4_000, 500, 1_000
BASE = "unknown"
KINDS = (BASE, "another prefix", "its beginning", "all but the last letter")
SHOWN = 16
"""Characters of a key that its owner, and so whoever looks over their shoulder, may see in lists."""


def wrong(kind: str, real: str) -> str:
    """Make a key that is none, of the same length."""
    other, _ = new_key("x", now=0.0)
    match kind:
        case "another prefix":
            return "xx" + other[2:]
        case "its beginning":
            return real[:SHOWN] + other[SHOWN:]
        case "all but the last letter":
            return real[:-1] + secrets.choice([letter for letter in "ABCDEF" if letter != real[-1]])
        case _:
            return other


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def refused_us(self, key: str) -> float:
        """Send a key; microseconds until all of the refusal is there."""
        sent = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n\r\n" % key.encode()
        began = time.perf_counter_ns()
        self._socket.sendall(sent)
        came = b""
        while b"\r\n\r\n" not in came:
            came += self._socket.recv(65_536)
        head, _, body = came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65_536)
        took = time.perf_counter_ns() - began
        if not head.startswith(b"HTTP/1.1 401"):
            sys.exit(f"not refused: {head[:60]!r}")
        return took / 1_000


def mann_whitney(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p that both are of one distribution, by the normal approximation (times are hardly ever equal)."""
    ranks = np.argsort(np.argsort(np.concatenate([one, other]))) + 1.0
    n, m = len(one), len(other)
    u = ranks[:n].sum() - n * (n + 1) / 2
    z = (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def measure(gateway: Gateway, real: str) -> dict[str, np.ndarray]:
    """Send all kinds in random order."""
    client = Client(gateway.port)
    for _ in range(WARM):
        client.refused_us(wrong(BASE, real))
    kinds = list(KINDS) * EACH
    random.shuffle(kinds)
    # Made beforehand: how long a kind takes to make would be seen in how awake the gateway is.
    keys = [wrong(kind, real) for kind in kinds]
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for kind, key in zip(kinds, keys, strict=True):
        took[kind].append(client.refused_us(key))
    return {kind: np.array(times) for kind, times in took.items()}


def told(took: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Medians, their distance from that of the unknown keys, and of two halves of one kind."""
    base = took[BASE]
    noise = [abs(np.median(times[::2]) - np.median(times[1::2])) for times in took.values()]
    found = {}
    for kind, times in took.items():
        found[kind] = {
            "median_us": round(float(np.median(times)), 2),
            "fastest_tenth_us": round(float(np.percentile(times, 10)), 2),
            "middle_half_us": round(float(np.percentile(times, 75) - np.percentile(times, 25)), 2),
            "difference_us": round(float(np.median(times) - np.median(base)), 2),
            "p": round(mann_whitney(times, base), 4) if kind != BASE else round(mann_whitney(base[::2], base[1::2]), 4),
        }
    return {**found, "noise": {"difference_us": round(float(max(noise)), 2)}}


def main() -> None:
    """Run a gateway with many keys, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        for _ in range(KEYS - 2):
            _, record = new_key(secrets.token_hex(4), now=time.time())
            stage.records.append(record)
        real = stage.add_key("real")
        with stage.run(state_dir=Path(folder) / "state", probe_interval_s=3_600) as gateway:
            found = told(measure(gateway, real))
    for kind, numbers in found.items():
        print(f"{kind:>24}: " + ", ".join(f"{name} {value}" for name, value in numbers.items()))
    print(json.dumps({"requests_each": EACH, "keys": KEYS, "kinds": found}))


if __name__ == "__main__":
    main()
