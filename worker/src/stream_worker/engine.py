"""The engine beside the worker: attached to, or started and watched. It is spoken to over HTTP and nothing else."""

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

import aiohttp

from stream_core.errors import UpstreamUnavailable
from stream_core.files import write_private
from stream_core.wire.job import EngineSpec

_POLL_S = 0.05
_STOP_GRACE_S = 5.0
_LOG_TAIL = 2000
_RECEIVE_BUFFER = 256 * 1024
_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child may do nothing but the one call.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Engine:
    """A running engine.

    Attributes:
        url: base, without /v1.
        process: None when it was attached to.
    """

    def __init__(self, url: str, api_key: str, process: asyncio.subprocess.Process | None, log: Path | None) -> None:
        self.url = url
        self.process = process
        self._log = log
        self.headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    def log_tail(self) -> str:
        """The last lines that it wrote, for the reason of a failure."""
        if self._log is None or not self._log.exists():
            return ""
        return self._log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip()

    async def wait_ready(self, session: aiohttp.ClientSession, spec: EngineSpec) -> None:
        """Wait until it answers.

        Raises:
            UpstreamUnavailable: it ended, or did not answer within the limit; the message has its log's tail.
        """
        try:
            async with asyncio.timeout(spec.start_timeout_s):
                while not await self._answers(session, spec.ready_path):
                    if self.process is not None and self.process.returncode is not None:
                        raise UpstreamUnavailable(self.obituary())
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            message = f"engine at {self.url} not ready within {spec.start_timeout_s:g} s: {self.log_tail()}"
            raise UpstreamUnavailable(message) from error

    def obituary(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode if self.process else None
        return f"engine ended with code {code}: {self.log_tail() or 'it wrote nothing'}"

    async def _answers(self, session: aiohttp.ClientSession, path: str) -> bool:
        try:
            async with session.get(self.url + path, headers=self.headers) as response:
                return response.status == 200  # noqa: PLR2004  (HTTP's own number)
        except aiohttp.ClientError:
            return False


@contextlib.asynccontextmanager
async def run_engine(spec: EngineSpec, folder: Path) -> AsyncIterator[Engine]:
    """Start or attach to an engine until the block ends.

    Args:
        spec: from the job.
        folder: private, for the key and the log.
    """
    if not spec.command:
        yield Engine(spec.url, os.environ.get("STREAM_ENGINE_API_KEY", ""), None, None)
        return
    port, key = _free_port(), secrets.token_urlsafe(32)
    key_file, log_path = folder / "engine.key", folder / "engine.log"
    write_private(key_file, key.encode())
    places = {"{port}": str(port), "{api_key_file}": str(key_file)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAM_WORKER__")}
    environment |= {name: _fill(value, places) for name, value in spec.environment.items()}
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(_fill(part, places) for part in spec.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield Engine(_fill(spec.url, places), key, process, log_path)
    finally:
        await _stop(process)


def engine_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket to the engine whose receive buffer stays small.

    Left alone, Linux lets it grow to tens of megabytes: the engine would write on for a client that reads nothing.
    """
    family, type_, protocol, _, _ = address
    made = socket.socket(family, type_, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made


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
    """In the child, before exec: a worker that is killed leaves no engine on the node."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _fill(text: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        text = text.replace(name, value)
    return text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
