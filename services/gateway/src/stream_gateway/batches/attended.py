"""The pipeline of interactive requests, with an eye on how long they wait for their first byte."""

import itertools
import time

from stream_gateway.backends.registry import Generation
from stream_gateway.fetching.fetcher import Fetcher
from stream_gateway.fitting import Fitting
from stream_gateway.judging import Judge
from stream_gateway.pipeline import Asked, Begun, Pipeline, Trail
from stream_gateway.till import Till


class AttendedPipeline(Pipeline):
    """A pipeline that knows who waits; lines of batches go through one of their own."""

    def __init__(self, judge: Judge, fitting: Fitting, till: Till, fetcher: Fetcher | None = None) -> None:
        """As of `Pipeline`."""
        super().__init__(judge, fitting, till, fetcher)
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}

    def waited_s(self) -> float:
        """How long the one that waits longest has waited; 0 when none does."""
        return time.monotonic() - min(self._since.values()) if self._since else 0.0

    async def begin(self, asked: Asked, generation: Generation, trail: Trail) -> Begun:
        """As of `Pipeline`."""
        number = next(self._numbers)
        self._since[number] = time.monotonic()
        try:
            return await super().begin(asked, generation, trail)
        finally:
            del self._since[number]
