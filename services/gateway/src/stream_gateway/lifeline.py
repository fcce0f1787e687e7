"""What can end a running request from outside: its client leaves, or the gateway has to stop."""

import asyncio
import contextlib
from collections.abc import Iterator

from stream_core.errors import StreamError


class ClientGone(Exception):
    """The client closed its connection."""


class Lifeline:
    """Ends one request by cancelling its task, and remembers why."""

    def __init__(self, task: asyncio.Task[object]) -> None:
        """Hold the task that runs the request."""
        self._task = task
        self.cause: ClientGone | StreamError | None = None

    def cut(self, cause: ClientGone | StreamError) -> None:
        """End the request; the first cause counts."""
        if self.cause is None:
            self.cause = cause
            self._task.cancel()

    def caught(self) -> ClientGone | StreamError | None:
        """Ask after a `CancelledError`: the cause if it was ours, which the task has then dealt with; else None."""
        if self.cause is not None:
            self._task.uncancel()
        return self.cause


class Running:
    """All running requests."""

    def __init__(self) -> None:
        self._lifelines: set[Lifeline] = set()
        self._none = asyncio.Event()
        self._none.set()
        self.closing = False
        """Set when the gateway drains: what runs is finished, what comes is refused."""

    def __len__(self) -> int:
        return len(self._lifelines)

    @contextlib.contextmanager
    def enter(self) -> Iterator[Lifeline]:
        """Count the current task's request in until the block ends."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a request always runs in a task)
        lifeline = Lifeline(task)
        self._lifelines.add(lifeline)
        self._none.clear()
        try:
            yield lifeline
        finally:
            self._lifelines.discard(lifeline)
            if not self._lifelines:
                self._none.set()

    async def drain(self, grace_s: float, cause: StreamError) -> int:
        """Wait until none runs; those that still do after `grace_s` are cut.

        Returns:
            How many were cut.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._none.wait()
        late = list(self._lifelines)
        for lifeline in late:
            lifeline.cut(cause)
        return len(late)
