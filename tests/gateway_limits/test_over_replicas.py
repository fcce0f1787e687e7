"""Limits over two real gateways and a real broker: exact under concurrency, through restarts and deaths."""

import asyncio
from collections import Counter
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest
from gateway.stage import Gateway
from gateway_limits.bank import Bank, ask, held

pytestmark = pytest.mark.process


async def test_a_thousand_in_parallel_against_a_limit_of_a_hundred(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Of 1,000 requests at once to two replicas exactly 100 pass, the others are 429; every one of a later turn is."""
    key = await bank.key(requests_per_minute=100)
    answers = await asyncio.gather(*(ask(client, bank.gateways[n % 2], key) for n in range(1_000)))
    assert Counter(answer.status for answer in answers) == {200: 100, 429: 900}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.error["code"] == "rate_limit_exceeded"
    assert refused.error["type"] == "requests"
    assert "limit of 100 requests per minute" in refused.error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    later = await asyncio.gather(*(ask(client, gateway, key) for gateway in bank.gateways))
    assert [answer.status for answer in later] == [429, 429]


async def test_tokens_of_all_replicas(bank: Bank, client: aiohttp.ClientSession) -> None:
    """While they run, requests count with their reserve, so 200 at once stay within a month's tokens."""
    key = await bank.key(tokens_per_month=2_000)
    answers = await asyncio.gather(
        *(ask(client, bank.gateways[n % 2], key, max_tokens=100, script={"tokens": 100}) for n in range(200))
    )
    passed = [answer for answer in answers if answer.status == 200]
    assert 0 < len(passed) <= 2_000 // 105
    assert {answer.error["code"] for answer in answers if answer.status != 200} == {"insufficient_quota"}
    # What was reserved and not used comes back, so that in the end all is used that a reserve still fits into.
    used, reserve = 105 * len(passed), 145
    async with asyncio.timeout(60):
        while used + reserve <= 2_000:
            last = await ask(client, bank.gateways[0], key, max_tokens=100, script={"tokens": 100})
            used += 105 * (last.status == 200)
    assert used <= 2_000
    assert (await ask(client, bank.gateways[1], key, max_tokens=100, script={"tokens": 100})).status == 429


async def test_streams_at_once(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Two streams run, at two replicas; a third request is refused until one of them ends."""
    key = await bank.key(concurrent_streams=2)
    first, second = bank.gateways
    async with held(client, first, key):
        async with held(client, second, key):
            for gateway in bank.gateways:
                refused = await ask(client, gateway, key)
                assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
                assert "limit of 2 requests at once" in refused.error["message"]
        await passes(client, bank, key)


async def passes(client: aiohttp.ClientSession, bank: Bank, key: str) -> None:
    """Ask until it is admitted, at each replica."""
    for gateway in bank.gateways:
        await admitted(client, gateway, key)


async def admitted(client: aiohttp.ClientSession, gateway: Gateway, key: str) -> None:
    """Ask a gateway until it lets a request pass; before that only the limit is in the way."""
    async with asyncio.timeout(60):
        while True:
            answer = await ask(client, gateway, key)
            if answer.status == 200:
                return
            assert answer.error["code"] == "rate_limit_exceeded"
            await asyncio.sleep(0.05)


async def test_they_survive_restarts(tmp_path: Path, engine: str, client: aiohttp.ClientSession) -> None:
    """What was used is known to a gateway that was started anew, and after the broker was killed and started again."""
    with Bank.running(tmp_path, engine) as bank:
        key = await bank.key(requests_per_minute=3, tokens_per_month=1_000_000)
        first, second = bank.gateways
        assert [(await ask(client, first, key)).status for _ in range(2)] == [200, 200]
        bank.broker.kill()
        refused = await ask(client, first, key)
        assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
        bank.broker.start()
        await passes_once(client, second, key)
        with bank.stage.run(Bank.env(tmp_path, bank.broker)) as third:
            while (answer := await ask(client, third, key)).status == HTTPStatus.SERVICE_UNAVAILABLE:
                assert answer.error["code"] == "limits_unavailable"  # it has just begun, and the broker, too
                await asyncio.sleep(0.05)
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")


async def passes_once(client: aiohttp.ClientSession, gateway: Gateway, key: str) -> None:
    """Ask until the broker is back; nothing else but its absence may be in the way."""
    async with asyncio.timeout(60):
        while (answer := await ask(client, gateway, key)).status != 200:
            assert answer.error["code"] == "limits_unavailable"
            await asyncio.sleep(0.05)


async def test_without_the_broker(tmp_path: Path, engine: str, client: aiohttp.ClientSession) -> None:
    """Limits of a minute go on per replica, those of a month let nothing pass; the log says so once."""
    with Bank.running(tmp_path, engine) as bank:
        minute, month = await bank.key(requests_per_minute=2), await bank.key(dollars_per_month=100.0)
        bank.broker.kill()
        first, _ = bank.gateways
        assert [(await ask(client, first, minute)).status for _ in range(3)] == [200, 200, 429]
        assert (await ask(client, first, month)).status == 200, "free of charge"
        refused = await ask(client, first, month, model="cloud")
        assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
        said = [line for line in first.program.log().splitlines() if "that keeps what was used is away" in line]
        assert len(said) == 1
        async with client.get(f"{first.url}/metrics") as answer:
            assert 'kind="limits_away"' in await answer.text()


async def test_a_replica_that_was_killed(tmp_path: Path, engine: str, client: aiohttp.ClientSession) -> None:
    """Its streams count until its lease is over, its reserves for ever; then another replica gives the places away."""
    with Bank.running(tmp_path, engine) as bank:
        key = await bank.key(concurrent_streams=1)
        first, second = bank.gateways
        try:
            async with held(client, first, key):
                assert (await ask(client, second, key)).status == 429
                first.program.process.kill()
                assert (await ask(client, second, key)).status == 429
        except aiohttp.ClientError:
            pass  # the stream's end, with the gateway's
        await admitted(client, second, key)
