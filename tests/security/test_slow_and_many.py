"""Clients that send slowly, endlessly, or come in crowds: each is told, and none of them keeps others out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from security.fort import PATIENCE_S, Fort, chat, error_of, run_fort, status_of

pytestmark = pytest.mark.process
MOST = 12


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    """A gateway with narrow limits."""
    limits = {"slow_request_s": 0.4, "slow_bytes_per_s": 100_000, "max_connections": MOST, "max_header_bytes": 4_096}
    with run_fort(tmp_path_factory.mktemp("small"), **limits) as fort:
        yield fort


@contextlib.asynccontextmanager
async def open_one(fort: Fort) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", fort.gateway.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def drip(fort: Fort, begin: bytes, drop: bytes) -> bytes:
    """Send a beginning, and then one drop after another until the gateway has had enough; what it says.

    A drop that meets the closing connection resets it, and what the gateway said may be lost with that.
    """
    async with open_one(fort) as (reader, writer):
        writer.write(begin)
        answer = asyncio.create_task(reader.read())
        async with asyncio.timeout(PATIENCE_S):
            while not answer.done():
                with contextlib.suppress(ConnectionError):
                    writer.write(drop)
                    await writer.drain()
                await asyncio.wait([answer], timeout=0.02)
        with contextlib.suppress(ConnectionError):
            return answer.result()
    return b""


async def test_a_head_that_never_ends(small: Fort) -> None:
    """One header a moment (Slowloris): the connection ends all the same, with 408 where it can be told."""
    answer = await drip(small, small.head(), b"x-a: b\r\n")
    assert not answer or status_of(answer) == 408
    answer = await small.say(small.head())
    assert status_of(answer) == 408
    assert error_of(answer)["code"] == "request_timeout"


async def test_a_body_that_never_ends(small: Fort) -> None:
    """One byte a moment (R-U-Dead-Yet): the same."""
    begin = small.head(content_type="application/json", content_length="1000000") + b"\r\n{"
    answer = await drip(small, begin, b" ")
    assert not answer or status_of(answer) == 408
    assert status_of(await small.say(begin)) == 408


async def test_silence(small: Fort) -> None:
    """A connection on which nothing is said is closed without a word."""
    assert await small.say(b"") == b""


async def test_a_large_body_gets_more_time(small: Fort) -> None:
    """What comes at the expected rate may take longer than the time that everything gets."""
    body = small.request(chat("x" * 200_000))
    async with open_one(small) as (reader, writer):
        for start in range(0, len(body), 20_000):
            writer.write(body[start : start + 20_000])
            await writer.drain()
            await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.08)
        assert status_of(await reader.read()) == 200


@pytest.mark.parametrize(
    "head",
    [b"x-a: " + b"b" * 5_000 + b"\r\n", b"x-a: b\r\n" * 700, b"x-a: " + b"b" * 100_000],
    ids=["one long header", "many headers", "a header without end"],
)
async def test_a_head_that_is_too_large(small: Fort, head: bytes) -> None:
    """431 with the limit, whether it comes at once or has no end."""
    answer = await small.say(small.head() + head + b"\r\n")
    assert status_of(answer) == 431
    assert "4,096 bytes" in error_of(answer)["message"]


async def test_a_url_that_is_too_long(small: Fort) -> None:
    """The request line counts, too."""
    assert status_of(await small.say(small.head("/v1/models?x=" + "y" * 5_000, method="GET") + b"\r\n")) == 431


async def test_a_crowd(small: Fort) -> None:
    """Beyond the most connections one is told so at once; when others leave it may come."""
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for _ in range(MOST + 4):
            reader, _ = await stack.enter_async_context(open_one(small))
            answers.append(asyncio.create_task(reader.read()))
        done, waiting = await asyncio.wait(answers, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        refused = [await task for task in done]
        refused += [await task for task in waiting]
    told = [answer for answer in refused if answer]
    assert len(told) >= 4
    assert {status_of(answer) for answer in told} == {503}
    assert {error_of(answer)["code"] for answer in told} == {"too_many_connections"}

    for _ in range(100):  # the gateway hears of the last one's leaving a moment later
        if (status := status_of(await small.say(small.request(chat())))) == 200:
            break
    assert status == 200


async def test_it_is_counted(small: Fort) -> None:
    """Each refusal is on /metrics."""
    answer = await small.say(small.head("/metrics", method="GET", connection="close") + b"\r\n")
    for kind in ("request_timeout", "headers_too_large", "too_many_connections"):
        assert f'stream_faults_total{{kind="{kind}"}}'.encode() in answer
