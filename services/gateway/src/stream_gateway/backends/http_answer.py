"""An answer over HTTP that has begun: its bytes in batches, its end told apart from a break."""

import asyncio
from collections import deque
from typing import Final, Self

import aiohttp

from stream_core.errors import StreamBroken, UpstreamTimeout
from stream_core.openai.chunks import is_finished
from stream_core.openai.sse import DONE, EventSplitter, is_done

_LAST_EVENTS: Final = 8
_TRAILER_S: Final = 0.2  # after "[DONE]" the body's end is due; without it the connection just can't be used again


class HttpAnswer:
    """See `contract.Answer`. A batch is what the socket had: nothing waits to make it larger."""

    def __init__(self, response: aiohttp.ClientResponse, *, first_timeout_s: float, idle_timeout_s: float) -> None:
        """Take over a response with status 200.

        Args:
            response: its head has been read, its body has not.
            first_timeout_s: seconds until the first bytes of the body.
            idle_timeout_s: seconds between two arrivals.
        """
        self.cluster = ""
        self.content_type = response.headers.get("content-type", "application/json")
        self._response = response
        self._content = response.content
        self._splitter = EventSplitter() if response.content_type == "text/event-stream" else None
        self._last: deque[bytes] = deque(maxlen=_LAST_EVENTS)
        self._done = False
        self._loop = asyncio.get_running_loop()
        self._limit_s = first_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._first = True
        self._waiting_since: float | None = None
        self._late = False
        # One timer for the whole stream: a timeout per read would cost more than the read.
        self._timer = self._loop.call_later(first_timeout_s, self._look)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        if self._splitter is None:
            data = await self._read()
            if data:
                return [data]
            await self._finish()
            raise StopAsyncIteration
        while not self._done:
            data = await self._read()
            if not data:
                return self._ended(self._splitter.rest())
            if events := self._splitter.feed(data):
                self._last.extend(events)
                self._done = is_done(events[-1])
                return events
        await self._finish()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection unless the answer was read to its end: the engine sees that nobody listens."""
        self._timer.cancel()
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def _ended(self, rest: bytes) -> list[bytes]:
        """Judge a body that ended without "[DONE]": some engines leave it out, and some connections just end."""
        self._done = True
        if not rest and is_finished(self._last):
            return [DONE]
        if rest.strip() == DONE.strip():
            return [DONE]
        raise StreamBroken("the engine's stream ended before the answer was complete")

    async def _finish(self) -> None:
        """Read the end of the body, so that the connection can be used again."""
        if not self._content.at_eof():
            try:
                async with asyncio.timeout(_TRAILER_S):
                    await self._content.readany()
            except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError):
                pass  # the answer is complete; `aclose` closes the connection
        await self.aclose()

    async def _read(self) -> bytes:
        self._waiting_since = self._loop.time()
        try:
            data = await self._content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # aiohttp: RuntimeError("Connection closed.")
            if self._late:
                raise UpstreamTimeout(f"the engine sent nothing for {self._limit_s:g} s") from error
            raise StreamBroken("the connection to the engine was lost before the answer was complete") from error
        self._waiting_since = None
        if self._first:
            self._first = False
            self._limit_s = self._idle_timeout_s
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limit_s, self._look)
        return data

    def _look(self) -> None:
        """Close the connection when a read has waited too long; a slow client is not the engine's fault."""
        now = self._loop.time()
        since = now if self._waiting_since is None else self._waiting_since
        left_s = since + self._limit_s - now
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._late = True
            self._response.close()
