"""The engine beside the worker, as it is spoken to: over HTTP and nothing else."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

import aiohttp

from stream_core.errors import UpstreamUnavailable
from stream_worker.engine_load import Load, read_load
from stream_worker.engine_log import EngineLog

_POLL_S: Final = 0.05
_PROBE_S: Final = 5.0
"""For one answer to "are you there": an engine that is loading may take a connection and say nothing."""
_RECEIVE_BUFFER: Final = 256 * 1024
_MAX_METRICS: Final = 4 * 1024 * 1024
_STALE_TRIES: Final = 8
"""On kept connections, before the last try: so many may have been closed by the engine at once."""
_OK: Final = 200
_NOT_READY: Final = 503
_NO_METRICS: Final = frozenset({401, 403, 404, 405, 501})


class Engine:
    """A running engine.

    Attributes:
        url: base, without /v1.
        ready_path: what answers 200 when it is ready.
        process: None when it was attached to.
        log: None when it was attached to.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        ready_path: str,
        process: asyncio.subprocess.Process | None = None,
        log: EngineLog | None = None,
    ) -> None:
        self.url = url
        self.ready_path = ready_path
        self.process = process
        self.log = log
        self.headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._tells_load = True

    async def wait_ready(self, session: aiohttp.ClientSession, limit_s: float) -> None:
        """Wait until it answers.

        Raises:
            UpstreamUnavailable: it ended, or did not answer within the limit; the message has its log's tail.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not await self.answers(session):
                    if self.process is not None and self.process.returncode is not None:
                        raise UpstreamUnavailable(self.obituary())
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            limit = f"the engine was not ready within {limit_s:g} s"
            if self.log is None:
                raise UpstreamUnavailable(f"{limit}: nothing answers at {self.url}") from error
            raise UpstreamUnavailable(f"{limit}; {_log_ends(self.log)}") from error

    def obituary(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode if self.process is not None else None
        if code is None:
            how = f"the engine at {self.url} is not ready any more"
        else:
            how = f"the engine ended with signal {-code}" if code < 0 else f"the engine ended with exit code {code}"
        return how if self.log is None else f"{how}; {_log_ends(self.log)}"

    async def answers(self, session: aiohttp.ClientSession) -> bool:
        """Ask whether it is ready."""
        timeout = aiohttp.ClientTimeout(total=_PROBE_S)
        try:
            async with session.get(self.url + self.ready_path, headers=self.headers, timeout=timeout) as response:
                return response.status == _OK
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def is_gone(self, session: aiohttp.ClientSession) -> bool:
        """Ask whether nobody is there, or it says itself that it is not ready; a slow one is there."""
        timeout = aiohttp.ClientTimeout(total=_PROBE_S)
        try:
            async with session.get(self.url + self.ready_path, headers=self.headers, timeout=timeout) as response:
                return response.status == _NOT_READY
        except aiohttp.ClientConnectorError:
            return True
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def load(self, session: aiohttp.ClientSession) -> Load:
        """Ask how busy it is; an engine that does not tell, now or at all, has no load."""
        if not self._tells_load:
            return Load()
        timeout = aiohttp.ClientTimeout(total=_PROBE_S)
        try:
            async with session.get(f"{self.url}/metrics", headers=self.headers, timeout=timeout) as response:
                self._tells_load = response.status not in _NO_METRICS
                if response.status != _OK:
                    return Load()
                return read_load((await _read_most(response)).decode("utf-8", "replace"))
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Load()


def engine_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make a socket to the engine whose receive buffer stays small.

    Left alone, Linux lets it grow to tens of megabytes: the engine would write on for a client that reads nothing.
    """
    family, type_, protocol, _, _ = address
    made = socket.socket(family, type_, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made


async def _read_most(response: aiohttp.ClientResponse) -> bytes:
    """Read a body, but no more of it than metrics may have."""
    read = bytearray()
    async for piece in response.content.iter_any():
        read += piece
        if len(read) > _MAX_METRICS:
            break
    return bytes(read[:_MAX_METRICS])


def _log_ends(log: EngineLog) -> str:
    tail = log.tail()
    return f"its log ends:\n{tail}" if tail else "it wrote nothing"


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> aiohttp.ClientResponse:
    """Ask the engine; the caller closes the response.

    Engines close kept connections when they please (llama.cpp after each stream). One that turns out to be closed is
    not the engine's answer: the next one is tried, and in the end a new one. Where nobody listens there is one try.

    Raises:
        aiohttp.ClientError: no connection, or one that was lost each time.
    """
    for _ in range(_STALE_TRIES):
        try:
            return await session.post(url, data=body, headers=headers)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            continue
    return await session.post(url, data=body, headers=headers)
