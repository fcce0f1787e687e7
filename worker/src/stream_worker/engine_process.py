"""Starting the engine, and leaving nothing of it behind: not its helpers either, and not when the worker is killed.

Engines start processes of their own (vLLM: one for each GPU), which outlive their parent. So the engine leads a
session of its own, which is killed as a whole when the engine has ended. And when this worker is gone, even by
`kill -9`, a guard does it: a shell that waits for the end of a pipe whose other end is ours alone.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stream_core.errors import UpstreamUnavailable
from stream_core.files import write_private
from stream_core.wire.job import EngineSpec
from stream_worker.engine import Engine
from stream_worker.engine_log import EngineLog, secrets_of

_STOP_GRACE_S: Final = 5.0
_GUARD: Final = 'read -r _; kill -s KILL -- "-$1"'
_PR_SET_PDEATHSIG: Final = 1
# Loaded before any fork: the child may do nothing but the one call.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@contextlib.asynccontextmanager
async def run_engine(spec: EngineSpec, folder: Path) -> AsyncIterator[Engine]:
    """Start or attach to an engine until the block ends.

    Args:
        spec: from the job.
        folder: private, for the key and the log.

    Raises:
        UpstreamUnavailable: it can't be started; the message says why.
    """
    if not spec.command:
        yield Engine(spec.url, os.environ.get("STREAM_ENGINE_API_KEY", ""), spec.ready_path)
        return
    if any("{api_key}" in part for part in spec.command):
        # Everybody on the node can read arguments.
        raise UpstreamUnavailable("engine command: {api_key} may stand in the environment only, here {api_key_file}")
    port, key = _free_port(), secrets.token_urlsafe(32)
    key_file, log_path = folder / "engine.key", folder / "engine.log"
    write_private(key_file, key.encode())
    places = {"{port}": str(port), "{api_key_file}": str(key_file)}
    url = _fill(spec.url, places)
    _check_unused(url)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAM_WORKER__")}
    environment |= {name: _fill(value, places | {"{api_key}": key}) for name, value in spec.environment.items()}
    log = EngineLog(log_path, secrets_of(environment, key))
    process = await _start([_fill(part, places) for part in spec.command], environment, log_path)
    try:
        async with _guarded(process.pid):
            yield Engine(url, key, spec.ready_path, process, log)
    finally:
        await _stop(process)


async def _start(command: list[str], environment: dict[str, str], log_path: Path) -> asyncio.subprocess.Process:
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    except OSError as error:
        raise UpstreamUnavailable(f"engine command {command[0]!r}: {error.strerror} on this node") from error
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def _guarded(session: int) -> AsyncIterator[None]:
    """Have a session killed if this process ends within the block."""
    guard = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        _GUARD,
        "engine-guard",
        str(session),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )
    try:
        yield
    finally:
        # Killed before its pipe ends: by then the session may be over and its number somebody else's.
        with contextlib.suppress(ProcessLookupError):
            guard.kill()
        await guard.wait()


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the engine and whatever it started, which is its own session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _end_with_parent() -> None:
    """In the child, before exec: should the guard be killed too, the engine itself at least ends with its worker."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _check_unused(url: str) -> None:
    """Refuse an address where somebody listens already: requests would go to a stranger.

    Raises:
        UpstreamUnavailable: the port is taken.
    """
    split = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((split.hostname or "", split.port or 80), timeout=1.0):
        raise UpstreamUnavailable(f"port {split.port} of this node is taken: another program listens at {url}")


def _fill(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace(name, value)
    return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
