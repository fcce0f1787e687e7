"""The peer's compute node: for each line on a Unix socket, one stream through its published producer.

Run in the peer's own environment: `producer.py JOB`, JOB being {"url", "secret", "key", "socket", "threads"}. A line is
{"channel", "text", "tokens", "interval_ms"}.
"""

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from streamrelay import RelayProducer
from websockets.exceptions import ConnectionClosed


async def stream(job: dict[str, Any], ask: dict[str, Any]) -> None:
    """Send the tokens as its documentation shows for asyncio."""
    interval = ask["interval_ms"] / 1000
    producer = RelayProducer(job["url"], ask["channel"], encryption_key=job["key"], relay_secret=job["secret"])
    with contextlib.suppress(ConnectionClosed, OSError):
        async with producer as relay:
            for _ in range(ask["tokens"]):
                await relay._async_send_raw({"type": "token", "content": ask["text"]})  # noqa: SLF001  (as documented)
                if interval:
                    await asyncio.sleep(interval)


def stream_in_thread(job: dict[str, Any], ask: dict[str, Any]) -> None:
    """Send the tokens as its README shows for a job script."""
    interval = ask["interval_ms"] / 1000
    producer = RelayProducer(job["url"], ask["channel"], encryption_key=job["key"], relay_secret=job["secret"])
    with contextlib.suppress(ConnectionClosed, OSError), producer as relay:
        for _ in range(ask["tokens"]):
            relay.send_token(ask["text"])
            if interval:
                time.sleep(interval)


async def main(job: dict[str, Any]) -> None:
    """Serve until killed."""
    running = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            ask = json.loads(line)
            work = asyncio.to_thread(stream_in_thread, job, ask) if job["threads"] else stream(job, ask)
            task = asyncio.ensure_future(work)
            running.add(task)
            task.add_done_callback(running.discard)
        writer.close()

    server = await asyncio.start_unix_server(serve, job["socket"], limit=1 << 20)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
