"""Lines of a batch count for their owner: they wait for a limit of a minute, and fail when a month's is used up."""

import aiohttp
import openai
import pytest
from batches.press import jsonl, lines_of, reach, request, start, upload
from gateway.stage import until
from gateway_limits.bank import Bank, ask
from gateway_limits.books import entry_of, requests

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


async def test_lines_count_for_the_project_that_they_were_made_for(bank: Bank, client: aiohttp.ClientSession) -> None:
    """A user's batch for a project spends of its tokens, is its in the ledger, and keeps its rules on tiers."""
    key, project = await bank.member({"tiers": ["local"], "limits": {"tokens_per_month": 1_000}})
    named = {"OpenAI-Project": project}
    long = {"max_tokens": 400, "script": {"tokens": 400}}
    async with official(bank, key) as owner:
        lines = [*(request(str(n), **long) for n in range(3)), request("elsewhere", model="others", max_tokens=5)]
        file = await upload(owner, jsonl(*lines))
        batch = await reach(owner, (await start(owner, file, **named)).id)
        good = [line["response"]["request_id"] for line in await lines_of(owner, batch.output_file_id)]
        failed = {line["custom_id"]: line["response"] for line in await lines_of(owner, batch.error_file_id)}
        codes = sorted(each["body"]["error"]["code"] for each in failed.values())
        # What is reserved for two of them leaves no room for a third, however they come.
        assert len(good) == 2
        assert codes == ["insufficient_quota", "not_allowed"]
        assert failed["elsewhere"]["status_code"] == 403
        refused = await ask(client, bank.gateways[1], key, headers=named, max_tokens=400)
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
        assert f"the project {project!r} has reached its limit of 1,000 tokens per month" in refused.error["message"]
        # The same lines for nobody's project are not the project's business.
        batch = await reach(owner, (await start(owner, file)).id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 4
    await until(lambda: {fields.id for fields in requests(bank.stage.folder)} >= set(good))
    for id_ in good:
        fields = entry_of(bank.stage.folder, id_)
        assert (fields.batch, fields.project, fields.prompt_tokens, fields.completion_tokens) == (True, project, 5, 400)
