"""The peer's application side: asks for streams and counts what comes, through its published consumer.

Run in the peer's own environment; one JSON job on standard input: {"url", "secret", "key", "socket", "text", "tokens",
"interval_ms", "clients", "requests", "head_start_s", "limit_s"}; one JSON result on standard output. "go" is written to
standard error with the first token, so that a relay can be killed under a stream.
"""

import asyncio
import json
import sys
import time
import uuid
from typing import Any

from streamrelay import RelayConsumer
from websockets.exceptions import ConnectionClosed


async def ask(job: dict[str, Any], control: asyncio.StreamWriter) -> dict[str, Any]:
    """One stream: its producer is told first, so that both connect at once; or later, when its consumer is there.

    The relay keeps 1,000 messages for a consumer that is not there yet and drops the oldest of more.
    """
    channel = str(uuid.uuid4())
    line = {name: job[name] for name in ("text", "tokens", "interval_ms")} | {"channel": channel}
    consumer = RelayConsumer(job["url"], channel, encryption_key=job["key"], relay_secret=job["secret"])
    began, first_s, tokens, ended = time.perf_counter(), 0.0, 0, "done"
    asyncio.get_running_loop().call_later(job["head_start_s"], control.write, json.dumps(line).encode() + b"\n")
    try:
        async with asyncio.timeout(job["limit_s"]):
            async for _ in consumer:
                if not tokens:
                    first_s = time.perf_counter() - began
                    if job.get("tell"):
                        sys.stderr.write("go\n")
                        sys.stderr.flush()
                tokens += 1
    except (ConnectionClosed, OSError, RuntimeError) as error:
        ended = type(error).__name__
    return {"first_ms": first_s * 1000, "tokens": tokens, "ended": ended}


async def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run all clients."""
    _, control = await asyncio.open_unix_connection(job["socket"])
    outcomes: list[dict[str, Any]] = []

    async def client() -> None:
        for _ in range(job["requests"]):
            outcomes.append(await ask(job, control))  # noqa: PERF401  (one at a time is the point)

    began, cpu = time.perf_counter() + job["head_start_s"], time.process_time()
    await asyncio.gather(*(client() for _ in range(job["clients"])))
    spent = {"elapsed_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    control.close()
    return spent | {"outcomes": outcomes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(sys.stdin.read())))))
