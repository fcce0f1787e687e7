"""Summaries at the broker: sealed, found again by another replica, of no use to another key, and never in the way."""

import secrets
from collections.abc import AsyncIterator
from logging import getLogger

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_core.broker_client import Client, connect
from stream_core.telemetry import Once
from stream_core.testing.broker import Broker, run_broker
from stream_summarizer.blocks import Blocks, block_key
from stream_summarizer.bucket import Bucket
from stream_summarizer.shelf import Shelf, seal, unseal

KEY = b"k" * 32
NAME = "ab" * 32
BLOCK = b"b" * 32
NONCE = b"n" * 12
TEXT = "The user wants 12 chairs for the hall in Oslo."
SEALED = seal(TEXT, KEY, BLOCK, NAME, nonce=NONCE)


def memory() -> Blocks:
    return Blocks(100, 100_000)


def key(scope: str, content: bytes = b"messages") -> bytes:
    found = block_key(scope, "model m", content)
    assert found is not None
    return found


def test_it_comes_back() -> None:
    """What was sealed opens at its place, and the sealed form shows no word of it."""
    assert unseal(SEALED, KEY, BLOCK, NAME) == TEXT
    assert b"chairs" not in SEALED


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_does_not_open(place: int, change: int) -> None:
    """No byte can be changed, and nothing cut."""
    changed = bytearray(SEALED)
    changed[place] ^= change
    assert unseal(bytes(changed), KEY, BLOCK, NAME) is None
    assert unseal(SEALED[:place], KEY, BLOCK, NAME) is None


def test_it_opens_for_its_own_place_alone() -> None:
    """Another service key, block or name opens nothing."""
    assert unseal(SEALED, b"x" * 32, BLOCK, NAME) is None
    assert unseal(SEALED, KEY, b"x" * 32, NAME) is None
    assert unseal(SEALED, KEY, BLOCK, "cd" * 32) is None


@pytest.fixture
async def bucket(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Bucket, Client, str]]:
    with run_broker() as url:
        client = await connect(url)
        name = f"test-{secrets.token_hex(4)}"
        try:
            yield await open_bucket(client, name), client, name
        finally:
            await client.close()


async def open_bucket(client: Client, name: str) -> Bucket:
    faults = Once(getLogger(__name__))
    return await Bucket.open(client, name, max_bytes=1024 * 1024, ttl_s=3600, replicas=1, faults=faults)


def shelf(bucket: Bucket, service_key: bytes = KEY) -> Shelf:
    return Shelf(memory(), bucket, service_key, Once(getLogger(__name__)))


@pytest.mark.process
async def test_another_replica_finds_it(bucket: tuple[Bucket, Client, str]) -> None:
    """One replica keeps a summary, another one finds it; another API key, content or service key finds nothing."""
    store, client, name = bucket
    first = shelf(store)
    first.put(key("key-1"), TEXT)
    await first.aclose()
    second = await open_bucket(client, name)
    assert await shelf(second).get(key("key-1")) == TEXT
    assert await shelf(second).get(key("key-2")) is None
    assert await shelf(second).get(key("key-1", b"other")) is None
    assert await shelf(second, b"x" * 32).get(key("key-1")) is None
    assert await shelf(second).get(None) is None


@pytest.mark.process
async def test_what_the_broker_holds(bucket: tuple[Bucket, Client, str]) -> None:
    """Neither name nor value shows scope, content or text; one that is moved to another name does not open."""
    store, client, name = bucket
    kept = shelf(store)
    kept.put(key("key-1"), TEXT)
    await kept.aclose()
    stream = client.jetstream()
    message = await stream.get_last_msg(f"KV_{name}", f"$KV.{name}.*")
    assert message.data is not None
    assert message.subject is not None
    shown = message.subject.encode() + message.data
    assert b"chairs" not in shown
    assert b"key-1" not in shown
    assert key("key-1") not in shown
    assert key("key-1").hex().encode() not in shown
    reader = shelf(store)
    await stream.publish(message.subject, message.data[:-1] + bytes([message.data[-1] ^ 1]))
    assert await reader.get(key("key-1")) is None


@pytest.mark.process
async def test_a_broker_that_is_gone_costs_nothing_but_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With the broker killed, what is in memory is found, the rest is not, and nothing raises."""
    broker = Broker(tmp_path_factory.mktemp("nats"))
    broker.start()
    client = await connect(broker.url, max_reconnect_attempts=1, reconnect_time_wait=0)
    try:
        kept = shelf(await open_bucket(client, "test"))
        kept.put(key("key-1"), TEXT)
        await kept.aclose()
        broker.kill()
        assert await kept.get(key("key-1")) == TEXT
        assert await kept.get(key("key-2")) is None
        kept.put(key("key-2"), "other")
        assert await kept.get(key("key-2")) == "other"
    finally:
        broker.kill()
        await client.close()
