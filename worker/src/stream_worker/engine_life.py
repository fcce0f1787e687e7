"""One lease's engine from its start to the lease's end: started, watched, and started again when it dies.

A crash costs the answers that were running, which their gateways continue elsewhere; it does not cost the lease, whose
place in the cluster's queue may have taken hours. A first start that fails is final: what was wrong stays wrong.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import aiohttp

from stream_core.errors import UpstreamUnavailable
from stream_core.wire.job import EngineSpec
from stream_worker.engine import Engine
from stream_worker.engine_load import Load
from stream_worker.engine_process import run_engine

_log = logging.getLogger(__name__)
_GONE_AFTER: Final = 3
"""Looks in a row at which an engine took no connection, or said that it is not ready."""


class EngineLife:
    """Keeps an engine.

    Args:
        spec: from the job.
        folder: private, for the engine's key and log.
        session: to speak to it.
        restarts: after crashes, in the whole lease.
        look_s: seconds between two looks at it.
        changed: called when `engine` has changed.

    Attributes:
        engine: the one that answers; None while there is none.
        load: what it said last.
    """

    def __init__(
        self,
        spec: EngineSpec,
        folder: Path,
        session: aiohttp.ClientSession,
        *,
        restarts: int,
        look_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._session = session
        self._restarts = restarts
        self._look_s = look_s
        self._changed = changed
        self._starting: Engine | None = None
        self._lived = False
        self._crashes: list[str] = []
        """How each engine ended that had been ready, or was to follow one."""
        self.engine: Engine | None = None
        self.load = Load()

    @property
    def note(self) -> str:
        """What it is doing while it is not ready, in its own last words."""
        if self.engine is not None or self._starting is None:
            return ""
        log = self._starting.log
        doing = log.last_line() if log is not None else f"waiting for an answer from {self._starting.url}"
        if not self._crashes:
            return doing
        crash = self._crashes[-1].partition(";")[0]
        if len(self._crashes) > self._restarts:
            return crash
        return f"{crash}, restart {len(self._crashes)} of {self._restarts}: {doing or 'starting'}"

    def let_end(self) -> None:
        """Start it no more when it ends: the worker drains."""
        self._restarts = 0

    async def run(self) -> NoReturn:
        """Keep it, until cancelled.

        Raises:
            UpstreamUnavailable: it could not be started, or died more often than it may; the message has the tail of
                its log.
        """
        while True:
            try:
                await self._live()
            except UpstreamUnavailable as error:
                if not self._lived:
                    raise
                self._crashes.append(error.message)
            if len(self._crashes) > self._restarts:
                raise UpstreamUnavailable(self._crashes[-1])
            counts = {"restart": len(self._crashes), "restarts": self._restarts}
            _log.warning("the engine is started again: %s", self._crashes[-1], extra=counts)

    async def watch_load(self) -> NoReturn:
        """Look at its load again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._look_s)
            self.load = await self.engine.load(self._session) if self.engine is not None else Load()

    async def _live(self) -> None:
        """Start it once, and wait for its end, which is noted before anybody hears that it is gone."""
        async with run_engine(self._spec, self._folder) as engine:
            self._starting = engine
            await engine.wait_ready(self._session, self._spec.start_timeout_s)
            self._lived = True
            self._become(engine)
            await self._until_gone(engine)
            self._crashes.append(engine.obituary())
            self._become(None)

    def _become(self, engine: Engine | None) -> None:
        self.engine, self.load = engine, Load()
        self._changed()

    async def _ended(self, engine: Engine) -> bool:
        """Wait until the next look at it; true as soon as its process has ended."""
        if engine.process is None:
            await asyncio.sleep(self._look_s)
            return False
        try:
            async with asyncio.timeout(self._look_s):
                await engine.process.wait()
        except TimeoutError:
            return False
        return True

    async def _until_gone(self, engine: Engine) -> None:
        """Wait for its process's end; or until it says so, as a server does whose core has died, or nobody listens."""
        misses = 0
        while misses < _GONE_AFTER:
            if await self._ended(engine):
                return
            misses = misses + 1 if await engine.is_gone(self._session) else 0
