"""Thousands of conversations through the real service: what it remembers of them stays bounded."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from stream_core.rpc import summarizer_pb2 as pb
from stream_core.testing.programs import start

from .building import said
from .serving import channel, environment, stub, to_fit

pytestmark = pytest.mark.process
CONVERSATIONS = int(os.environ.get("STREAM_CONVERSATIONS", "4000"))
"""A leak shows in fewer than an institution has in a day; set it to 10,000 and more to be surer."""
AT_ONCE = 16
SETTLED = 2_000
LIMIT = 2 * 1024 * 1024


def talk(number: int) -> pb.FitRequest:
    """One of ten keys' conversations, which none of the others has; too long for its window."""
    texts = [f"{number} {turn} ab cd. " * 7 for turn in range(3)]
    messages = [said("user" if turn % 2 == 0 else "assistant", text) for turn, text in enumerate(texts)]
    return to_fit(messages, 160, output=16, model="unknown", cache_scope=f"key-{number % 10}")


async def test_memory_over_thousands_of_conversations(certificates: Path, config: Path) -> None:
    """All are condensed; once the caches are full the process grows by less than 2 KB for each one more."""
    more = {
        "STREAM_CONFIG": str(config),
        "STREAM_SUMMARIZER__CACHE_BYTES": str(LIMIT),
        "STREAM_SUMMARIZER__CACHE_ENTRIES": "1000",
        "STREAM_SUMMARIZER__LOG_LEVEL": "WARNING",
    }
    with start("stream_summarizer", env=environment(certificates, **more)) as program:
        process = psutil.Process(program.process.pid)
        async with channel(program, certificates) as open_one:
            summarizer = stub(open_one)

            async def client(numbers: "asyncio.Queue[int]") -> None:
                while not numbers.empty():
                    reply = await summarizer.Fit(talk(numbers.get_nowait()), timeout=30)
                    assert reply.method == pb.METHOD_EXTRACT

            async def all_of(first: int, last: int) -> int:
                numbers: asyncio.Queue[int] = asyncio.Queue()
                for number in range(first, last):
                    numbers.put_nowait(number)
                await asyncio.gather(*(client(numbers) for _ in range(AT_ONCE)))
                return int(process.memory_info().rss)

            settled = await all_of(0, SETTLED)
            assert await all_of(SETTLED, CONVERSATIONS) - settled < 2_048 * (CONVERSATIONS - SETTLED)
