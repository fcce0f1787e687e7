"""Summaries written ahead: blocks of conversations that grow towards a window, before the request that exceeds it.

One at a time, the oldest first, and none while a request waits for the model itself. What finds no place in the queue
is left out: the request that needs it asks by itself, or is served by extraction.
"""

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from stream_summarizer.backend import Backend
from stream_summarizer.fitting import BlockTask
from stream_summarizer.shelf import Shelf

log = logging.getLogger(__name__)

MAX_WAITING: Final = 256
PATIENCE_S: Final = 60.0
"""How long the model may take for a block that nobody waits for."""


class Ahead:
    """The queue and its one worker.

    Args:
        backend: the model.
        shelf: where summaries are kept.
    """

    def __init__(self, backend: Backend, shelf: Shelf) -> None:
        self._backend = backend
        self._shelf = shelf
        self._waiting: OrderedDict[bytes, BlockTask] = OrderedDict()
        self._more = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def add(self, key: bytes | None, task: BlockTask) -> None:
        """Have a block summarised some time; without a key it could not be found again."""
        if key is None or key in self._waiting or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[key] = task
        self._more.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def aclose(self) -> None:
        """Stop; what was not written is left out."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._more.wait()
            while self._waiting and not self._backend.resting:
                key, task = next(iter(self._waiting.items()))
                if await self._shelf.get(key) is None:
                    await self._backend.calm()
                    answer = await self._backend.condense(task.text, task.summary_tokens, PATIENCE_S)
                    if answer.text or answer.silent:
                        self._shelf.put(key, answer.text)
                        log.info("block written ahead", extra={"tokens": task.summary_tokens})
                self._waiting.pop(key, None)
            self._waiting.clear()  # the model rests: the next request brings them again
            self._more.clear()
