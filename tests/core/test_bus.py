"""The first connection to the broker."""

import asyncio

import pytest

from stream_core import bus
from stream_core.errors import ConfigError
from stream_core.settings import NatsSettings


async def test_a_lost_cancellation_is_no_endless_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library swallows the end of its time, as it does when a refusal comes in that moment: it is told again."""
    swallowed = asyncio.Event()

    async def stubborn(*_args: object, **_more: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(bus._Client, "connect", stubborn)
    monkeypatch.setattr(bus, "_FIRST_CONNECT_S", 0.05)
    monkeypatch.setattr(bus, "_AGAIN_S", 0.05)
    with pytest.raises(ConfigError) as caught:
        await bus.connect(NatsSettings(url="nats://127.0.0.1:9"), name="gateway")
    assert caught.value.param == "nats.url"
    assert swallowed.is_set()
