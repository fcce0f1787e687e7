"""The published peer, `streamrelay`, in a throw-away environment: its relay, producer and consumer as processes.

It carries the very bytes that our road carries, one message a token, as its documentation uses it: a channel per
answer, both sides dialling its relay, its shared secret set, and its encryption on (`sealed`) or off. What favours it
here: its tokens are made in its producer and counted in its consumer, while ours come from an engine's HTTP and go to
a client's HTTP; and its control plane, a job queue, costs one line on a local socket.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from stream_core.testing.broker import free_port

PACKAGE = "streamrelay==0.3.1"
_ROOT = Path(__file__).parents[2]
_HOME = _ROOT / ".cache" / "peer" / PACKAGE.replace("==", "-")
_DRIVERS = Path(__file__).with_name("drivers")
_INSTALL_S = 120
_READY_S = 15.0
_STREAM_S = 40.0
"""Of one answer: when its producer could not connect, nobody tells its consumer, which waits for ever."""


class NotInstalled(Exception):
    """The package can't be had here; the message says why."""


def install() -> Path:
    """Make the environment, once, and return its interpreter.

    Raises:
        NotInstalled: no uv, no package registry, or no such package.
    """
    python = _HOME / "bin" / "python"
    if (_HOME / "complete").exists():
        return python
    uv = Path(sys.executable).with_name("uv")
    try:
        for command in (
            [str(uv), "venv", "-q", "--clear", str(_HOME)],
            [str(uv), "pip", "install", "-q", "-p", str(python), PACKAGE],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.CalledProcessError as error:
        raise NotInstalled(f"{PACKAGE}: {(error.stderr or '').strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{PACKAGE}: {type(error).__name__}: {error}") from error
    (_HOME / "complete").touch()
    return python


@dataclass
class Peer:
    """Its running relay and producer.

    Attributes:
        job: what every consumer needs to know.
    """

    python: Path
    relay: "subprocess.Popen[str]"
    producer: "subprocess.Popen[str]"
    job: dict[str, Any]

    def load(
        self,
        text: str,
        *,
        tokens: int,
        clients: int,
        requests: int = 1,
        interval_ms: float = 0,
        head_start_s: float = 0,
    ) -> dict[str, Any]:
        """Run its consumer once.

        Args:
            text: of each token.
            tokens: of each answer.
            clients: that ask at once.
            requests: that each of them makes.
            interval_ms: between two tokens.
            head_start_s: how long consumers are connected before their producers are asked; not in any figure.

        Returns:
            {"elapsed_s", "first_ms": [...], "tokens", "missing", "cpu_s": {process: seconds}}
        """
        job = self.job | {"text": text, "tokens": tokens, "interval_ms": interval_ms, "head_start_s": head_start_s}
        job |= {"limit_s": _STREAM_S}
        parts = {"producer": psutil.Process(self.producer.pid), "relay": psutil.Process(self.relay.pid)}
        before = {name: sum(part.cpu_times()[:2]) for name, part in parts.items()}
        done = subprocess.run(
            [str(self.python), str(_DRIVERS / "consumer.py")],
            input=json.dumps(job | {"clients": clients, "requests": requests}),
            capture_output=True,
            text=True,
            check=True,
            timeout=_STREAM_S * requests + _READY_S,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        outcomes = result["outcomes"]
        cpu = {name: sum(part.cpu_times()[:2]) - before[name] for name, part in parts.items()}
        return {
            "elapsed_s": result["elapsed_s"],
            "first_ms": [one["first_ms"] for one in outcomes],
            "tokens": sum(one["tokens"] for one in outcomes),
            "missing": clients * requests * tokens - sum(one["tokens"] for one in outcomes),
            "cpu_s": cpu | {"consumer": result["cpu_s"]},
        }

    def kill_relay(self, text: str, tokens: int, streams: int, interval_ms: float) -> dict[str, Any]:
        """Kill -9 its relay under so many streams, a while after the first token; the last thing done with a peer.

        Returns:
            {"streams", "streams_broken", "tokens", "tokens_lost"}
        """
        job = self.job | {"text": text, "tokens": tokens, "interval_ms": interval_ms, "tell": True, "head_start_s": 0}
        job |= {"limit_s": _STREAM_S}
        with subprocess.Popen(
            [str(self.python), str(_DRIVERS / "consumer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as consumer:
            if consumer.stdin is None or consumer.stderr is None or consumer.stdout is None:
                raise RuntimeError("no pipes")
            with consumer.stdin as pipe:
                pipe.write(json.dumps(job | {"clients": streams, "requests": 1}))
            for _ in range(streams):
                consumer.stderr.readline()
            time.sleep(tokens * interval_ms / 1000 / 4)
            self.relay.kill()
            outcomes = json.loads(consumer.stdout.read())["outcomes"]
        return {
            "streams": streams,
            "streams_broken": sum(one["tokens"] != tokens or one["ended"] != "done" for one in outcomes),
            "tokens": streams * tokens,
            "tokens_lost": streams * tokens - sum(one["tokens"] for one in outcomes),
        }


@contextlib.contextmanager
def run_peer(python: Path, *, sealed: bool, threads: bool = False) -> Iterator[Peer]:
    """Run its relay and producer until the block ends.

    Args:
        python: from `install`.
        sealed: with its end-to-end encryption.
        threads: a thread for each stream, as its README shows, instead of asyncio, which its source documents and
            which carries more.

    Raises:
        RuntimeError: it does not start.
    """
    port, secret = free_port(), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="stream-peer-") as folder, contextlib.ExitStack() as stack:
        job = {
            "url": f"ws://127.0.0.1:{port}",
            "secret": secret,
            "key": secrets.token_hex(32) if sealed else "",
            "socket": str(Path(folder, "producer")),
        }
        relay = _start(
            stack,
            [str(python.with_name("streamrelay-server")), "--host", "127.0.0.1", "--port", str(port)],
            {"RELAY_SECRET": secret},
        )
        producer = _start(stack, [str(python), str(_DRIVERS / "producer.py"), json.dumps(job | {"threads": threads})])
        if producer.stdout is None or producer.stdout.readline() != "ready\n":
            raise RuntimeError("the peer's producer did not start")
        _wait_listening(relay, port)
        yield Peer(python, relay, producer, job)


def _start(
    stack: contextlib.ExitStack, command: list[str], env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        command, env=os.environ | (env or {}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def end() -> None:
        process.kill()
        process.communicate()

    stack.callback(end)
    return process


def _wait_listening(relay: "subprocess.Popen[str]", port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while relay.poll() is None and time.monotonic() < deadline:
        listening = psutil.Process(relay.pid).net_connections("tcp")
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in listening):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the peer's relay does not listen (exit code {relay.poll()})")
