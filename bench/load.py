"""A load generator that costs little: raw HTTP/1.1 over one socket per client, counting events as they come.

Run as a process of its own by `bench/dataplane.py`: reads one JSON job on standard input, writes one JSON result.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

_MARK = b"data: {"
_DONE = b"data: [DONE]"


@dataclass
class Outcome:
    """One answer: seconds to its first event, events seen, whether it was complete."""

    first_s: float
    events: int
    complete: bool


class Client(asyncio.Protocol):
    """One connection that asks again and again."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Outcome] | None = None
        self._events, self._first, self._sent = 0, 0.0, 0.0
        self._tail = self._ending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> asyncio.Future[Outcome]:
        """Send the request; the future ends with the answer."""
        if self._transport is None:
            raise RuntimeError("not connected")
        self._answer = asyncio.get_running_loop().create_future()
        self._events, self._first = 0, 0.0
        self._tail = self._ending = b""
        self._sent = time.perf_counter()
        self._transport.write(self._request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Count events; the answer ends with HTTP's last chunk."""
        seen = self._tail + data
        count = seen.count(_MARK)
        if count and not self._events:
            self._first = time.perf_counter() - self._sent
        self._events += count
        # The tail must be shorter than the mark, or an event would be counted twice.
        self._tail = seen[-(len(_MARK) - 1) :]
        self._ending = (self._ending + data)[-64:]
        if self._ending.endswith(b"0\r\n\r\n") and self._answer is not None and not self._answer.done():
            self._answer.set_result(Outcome(self._first, self._events, _DONE in self._ending))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the signature is the library's)
        """The answer, if one was running, is not complete."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Outcome(self._first, self._events, complete=False))


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(job["url"])
    body = json.dumps(job["body"]).encode()
    head = (
        f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {job['key']}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(job["clients"]):
        _, client = await loop.create_connection(lambda: Client(head.encode() + body), url.hostname, url.port)
        clients.append(client)
    outcomes: list[Outcome] = []
    started = time.perf_counter()

    async def steadily(client: Client, offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        for _ in range(job["requests"]):
            outcomes.append(await client.ask())  # noqa: PERF401  (one at a time is the point)

    spread = job.get("spread_s", 0.0) / max(1, len(clients))
    await asyncio.gather(*(steadily(client, number * spread) for number, client in enumerate(clients)))
    return {
        "elapsed_s": time.perf_counter() - started,
        "first_ms": [outcome.first_s * 1000 for outcome in outcomes],
        "events": sum(outcome.events for outcome in outcomes),
        "incomplete": sum(not outcome.complete for outcome in outcomes),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(_run(json.loads(sys.stdin.read())))))
