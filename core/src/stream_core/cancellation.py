"""Cancellations that are lost: libraries swallow one now and then.

`asyncio.wait_for` of Python 3.11 gives the result that comes in the same moment instead, and the loop around it goes
on.
"""

import asyncio
from typing import Any


def heed_cancellation() -> None:
    """End a task that was cancelled while a library swallowed it; see `end`. For the head of an endless loop.

    Raises:
        asyncio.CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(*tasks: asyncio.Task[Any], again_s: float = 5.0) -> None:
    """Cancel tasks until they have ended.

    Args:
        tasks: what they raise is theirs to tell.
        again_s: after so long one that goes on is cancelled again.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_s)
