"""Lines of a batch count for their owner: they wait for a limit of a minute, and fail when a month's is used up."""

import aiohttp
import openai
import pytest
from batches.press import jsonl, lines_of, reach, request, start, upload
from gateway.stage import until
from gateway_limits.bank import Bank, ask

pytestmark = pytest.mark.process


def official(bank: Bank, key: str) -> openai.AsyncOpenAI:
    """The official client."""
    return openai.AsyncOpenAI(base_url=f"{bank.gateways[0].url}/v1", api_key=bank.stage.keys[key], max_retries=0)


async def test_a_limit_of_a_minute_lets_lines_wait(bank: Bank, client: aiohttp.ClientSession) -> None:
    """Two of three lines run, the third one waits and is not failed; the owner's own requests meet the same limit."""
    key = await bank.key(requests_per_minute=2)
    async with official(bank, key) as owner:
        file = await upload(owner, jsonl(*(request(str(n), max_tokens=5) for n in range(3))))
        batch = await start(owner, file)
        await reach(
            owner, batch.id, lambda seen: seen.request_counts is not None and seen.request_counts.completed == 2
        )
        gateway, id_ = bank.gateways[0], bank.stage.records[-1].id
        await until(
            lambda: any(
                line["key"] == id_ and line["ended"] == "rate_limit_exceeded" for line in gateway.lines("request")
            )
        )
        assert (await ask(client, bank.gateways[1], key)).status == 429
        seen = await owner.batches.retrieve(batch.id)
        assert seen.status == "in_progress"
        assert seen.request_counts is not None
        assert seen.request_counts.failed == 0
        await owner.batches.cancel(batch.id)


async def test_requests_at_once_let_lines_wait(bank: Bank) -> None:
    """With one at once all lines run, one after the other."""
    key = await bank.key(concurrent_streams=1)
    async with official(bank, key) as owner:
        file = await upload(owner, jsonl(*(request(str(n), max_tokens=5) for n in range(4))))
        batch = await reach(owner, (await start(owner, file)).id)
        assert batch.request_counts is not None
        assert (batch.status, batch.request_counts.completed) == ("completed", 4)


async def test_a_quota_that_is_used_up_fails_lines(bank: Bank) -> None:
    """The line is in the error file, with the code; a line that costs nothing runs."""
    key = await bank.key(dollars_per_month=0.0)
    async with official(bank, key) as owner:
        lines = [request("free", max_tokens=5), request("dear", model="cloud", max_tokens=5)]
        batch = await reach(owner, (await start(owner, await upload(owner, jsonl(*lines)))).id)
        assert [line["custom_id"] for line in await lines_of(owner, batch.output_file_id)] == ["free"]
        failed = await lines_of(owner, batch.error_file_id)
        assert [line["custom_id"] for line in failed] == ["dear"]
        assert failed[0]["response"]["status_code"] == 429
        assert failed[0]["response"]["body"]["error"]["code"] == "insufficient_quota"
