"""A backup that is taken under load, then everything is lost: what was there at its begin is there again."""

import asyncio
import datetime
import json
import stat
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from backup.estate import Estate
from batches.press import jsonl, lines_of, reach, request, start, upload
from gateway.stage import Gateway, until

from stream_gateway.backup.manifest import Manifest, read

pytestmark = pytest.mark.process
LINES = 120
CLIENTS = 8
SPENT = r"limit of 100 tokens per month: \d+ used"


@dataclass
class Load:
    """Clients that ask one after the other, at both gateways."""

    estate: Estate
    key: str
    answered: dict[str, float] = field(default_factory=dict)
    """When the answers of which requests had come, in unix seconds."""
    refused: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Ask until cancelled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._ask(session, self.estate.gateways[number % 2]))

    async def _ask(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        body = {"model": "local", "messages": [{"role": "user", "content": "hi"}], "script": {"tokens": 2}}
        headers = {"authorization": f"Bearer {self.key}"}
        while True:
            async with session.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as answer:
                if answer.status != 200:
                    self.refused.append(await answer.text())
                await answer.read()
                self.answered[answer.headers["x-request-id"]] = time.time()


async def admin(estate: Estate, method: str, path: str, **body: Any) -> Any:
    """Ask as an administrator."""
    gateway = estate.gateways[0]
    async with (
        aiohttp.ClientSession(headers=gateway.headers("admin")) as session,
        session.request(method, gateway.url + path, json=body or None) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def counted(estate: Estate) -> Counter[str]:
    """How many entries the ledger has of each request."""
    gateway = estate.gateways[0]
    async with (
        aiohttp.ClientSession(headers=gateway.headers("admin")) as session,
        session.get(f"{gateway.url}/v1/audit") as answer,
    ):
        entries = [json.loads(line) for line in (await answer.text()).splitlines()]
    return Counter(entry["request"]["id"] for entry in entries if "request" in entry)


def client(estate: Estate, key: str) -> openai.AsyncOpenAI:
    """The official client."""
    return openai.AsyncOpenAI(base_url=f"{estate.gateways[0].url}/v1", api_key=key, max_retries=0)


async def known(estate: Estate, *keys: str) -> None:
    """Wait until both gateways know the keys."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        for url in (f"{gateway.url}/v1/models" for gateway in estate.gateways):
            for headers in ({"authorization": f"Bearer {key}"} for key in keys):
                while True:
                    async with session.get(url, headers=headers) as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.02)


async def ready(estate: Estate) -> None:
    """Wait until both gateways have reached the broker."""
    await until(lambda: all(gateway.lines("files and batches are ready") for gateway in estate.gateways))


@pytest.fixture(params=["sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    """Where the store is, and where it is restored to: the other kind."""
    server = request.getfixturevalue("postgres")
    url = await server.create(f"backup{time.time_ns()}")
    places = [{"state_dir": tmp_path / "state"}, {"store_url": url, "store_password_file": server.password_file}]
    return places if request.param == "sqlite" else places[::-1]


@dataclass
class Work:
    """What somebody has in the installation."""

    key: str
    spent_key: str
    response: str
    file: str
    content: bytes
    batch: str


async def begin(estate: Estate) -> Work:
    """Make keys, spend what one of them may, keep a response and a file, and start a batch."""
    key = (await admin(estate, "POST", "/admin/v1/keys", name="kept"))["key"]
    spent = (await admin(estate, "POST", "/admin/v1/keys", name="spent", limits={"tokens_per_month": 100}))["key"]
    await known(estate, key, spent)
    with pytest.raises(openai.RateLimitError, match=SPENT):
        while True:
            await say(estate, spent)
    async with client(estate, key) as official:
        script = {"script": {"tokens": 1, "text": "kept answer"}}
        response = await official.responses.create(model="local", input="remember", extra_body=script)
        content = jsonl(*[request(f"r{n}", script={"delay_ms": 500, "tokens": 1}) for n in range(LINES)])
        file = await upload(official, content)
        batch = await start(official, file)
        return Work(key, spent, response.id, file, content, batch.id)


async def test_all_is_there_again(tmp_path: Path, engine: str, stores: list[dict[str, Any]]) -> None:
    """Keys, limits, files, responses, a batch in its middle, and each request in the ledger once, in whole chains."""
    folder = tmp_path / "kept"
    with Estate.built(tmp_path, engine, stores[0]) as estate:
        await asyncio.to_thread(estate.serve, 1)  # the batch takes far longer than what happens before the backup
        await ready(estate)
        work = await begin(estate)
        load = Load(estate, work.key)
        running = asyncio.create_task(load.run())
        async with client(estate, work.key) as official:
            await reach(official, work.batch, lambda now: now.request_counts.completed > 2)
        await moved(estate, lambda there: len(there) > 50)
        done = await asyncio.to_thread(estate.command, "save", folder)
        assert done.returncode == 0, done.stderr
        running.cancel()
        await asyncio.wait([running])
        assert load.refused == []
        await asyncio.to_thread(estate.lose, stores[1])

        manifest = read(folder)
        check_folder(folder, manifest, work.key)
        done = await asyncio.to_thread(estate.command, "load", folder)
        assert done.returncode == 0, done.stderr
        assert "the service key fits" in done.stdout
        await asyncio.to_thread(estate.serve, 64)
        await ready(estate)
        await check_work(estate, work)
        begun = datetime.datetime.fromisoformat(manifest.begun).timestamp()
        before = {id_ for id_, at in load.answered.items() if at < begun}
        assert len(before) > 50
        times = await moved(estate, lambda there: before <= there.keys())
        assert {id_: times[id_] for id_ in before if times[id_] != 1} == {}
        told = await admin(estate, "GET", "/v1/audit/verify")
        assert (told["ok"], told["faults"]) == (True, [])


async def moved(estate: Estate, enough: Callable[[Counter[str]], bool]) -> Counter[str]:
    """Look into the store's ledger until it has what is wanted."""
    async with asyncio.timeout(60):
        while not enough(there := await counted(estate)):  # noqa: ASYNC110  (another process moves them)
            await asyncio.sleep(0.1)
    return there


async def check_work(estate: Estate, work: Work) -> None:
    """All of it is there, and the batch goes on to its end."""
    with pytest.raises(openai.RateLimitError, match=SPENT):
        await say(estate, work.spent_key)
    async with client(estate, work.key) as official:
        assert (await official.responses.retrieve(work.response)).output_text == "kept answer"
        assert (await official.files.content(work.file)).content == work.content
        ended = await reach(official, work.batch)
        assert ended.request_counts is not None
        assert ended.request_counts.model_dump() == {"total": LINES, "completed": LINES, "failed": 0}
        results = await lines_of(official, ended.output_file_id)
        assert sorted(line["custom_id"] for line in results) == sorted(f"r{n}" for n in range(LINES))


def check_folder(folder: Path, manifest: Manifest, key: str) -> None:
    """It was taken in the middle, can be read by its owner alone, and has no secret in it."""
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o700, {0o600})
    messages = {stream.name: stream.state["messages"] for stream in manifest.streams}
    assert messages["stream-batch-ledger"] > 0
    assert 0 < messages["stream-batch-results"] < LINES
    secret = bytes.fromhex((folder.parent / "batch.key").read_text())
    for path in folder.iterdir():
        for each in (secret, secret.hex().encode(), key.encode()):
            assert each not in path.read_bytes()
    assert [path.name for path in folder.parent.glob(".kept*")] == []


async def say(estate: Estate, key: str) -> None:
    """Ask for 20 tokens."""
    message: Any = {"role": "user", "content": "hello"}
    async with client(estate, key) as official:
        await official.chat.completions.create(
            model="local", messages=[message], max_tokens=20, extra_body={"script": {"tokens": 20}}
        )
