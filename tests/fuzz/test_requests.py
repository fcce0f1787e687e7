"""Mutated requests against the whole gateway: no error of its own, no trace, no secret, every error in its API's form.

STREAM_FUZZ_REQUESTS says how many (`make fuzz` takes 50,000), STREAM_FUZZ_SEED another seed, STREAM_FUZZ_CASE the only
number to run again.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz.requests import Requests, Sent
from gateway.privacy.realm import Log, Place, Played
from gateway.stage import Stage
from gateway_accounts.provider import AUDIENCE, Provider

from stream_core.deployment import Deployment
from stream_core.testing.broker import Broker
from stream_gateway.accounts.life import Accounts, open_accounts
from stream_gateway.app import App
from stream_gateway.backends.registry import Generation, Registry
from stream_gateway.batches.attended import AttendedPipeline
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.service import Batches
from stream_gateway.feedback import RecentAnswers
from stream_gateway.fitting import Fitting
from stream_gateway.judging import Judge
from stream_gateway.ledger.writer import Ledger
from stream_gateway.lifeline import Running
from stream_gateway.limits.book import Book
from stream_gateway.limits.meter import Meter
from stream_gateway.pipeline import Pipeline
from stream_gateway.routes.admin_keys import admin_routes
from stream_gateway.routes.asking import Means
from stream_gateway.routes.endpoints import endpoints
from stream_gateway.routes.feedback import feedback_routes
from stream_gateway.routes.messages import message_routes
from stream_gateway.routes.route import explain_routes
from stream_gateway.routes.usage import usage_routes
from stream_gateway.settings import GatewaySettings
from stream_gateway.spending import Spending
from stream_gateway.till import Till

SEED = int(os.environ.get("STREAM_FUZZ_SEED", "20261"))
COUNT = int(os.environ.get("STREAM_FUZZ_REQUESTS", "2000"))
CASE = os.environ.get("STREAM_FUZZ_CASE")
AT_ONCE = 16
PATIENCE_S = 30
DECLARED = {StoreAway.code: 503}
"""The only codes with a status from 500 that may come: engines are in the play, the store may be busy."""
ABLE = ["tools", "json_schema", "logprobs", "chat", "embeddings", "moderations", "tokenize", "tokenize_chat"]


class Gateway:
    """The whole application in this process, before engines that only answer."""

    def __init__(self, app: App, keys: list[str], provider: Provider) -> None:
        self.app = app
        self.keys = keys
        self.provider = provider
        self.log = Log()

    async def ask(self, sent: Sent) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """One request, as the server gives it to the application."""
        inbox = iter([{"type": "http.request", "body": sent.body, "more_body": False}])
        out: list[Any] = []

        async def receive() -> Any:
            message = next(inbox, None)
            if message is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:
            out.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": sent.path,
            "raw_path": sent.path.encode("utf-8", "replace"),
            "query_string": sent.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in sent.headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        async with asyncio.timeout(PATIENCE_S):
            await self.app(scope, receive, send)
        starts = [message for message in out if message["type"] == "http.response.start"]
        assert len(starts) == 1
        body = b"".join(message.get("body", b"") for message in out[1:])
        return starts[0]["status"], list(starts[0]["headers"]), body


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Gateway]:
    """Build it as `python -m stream_gateway` does, with a broker, accounts and an identity provider.

    There is no server, and the engines are played: a request costs a few milliseconds.
    """
    (folder / "nats").mkdir()
    broker = Broker(folder / "nats")
    await asyncio.to_thread(broker.start)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, broker.stop)
        provider = await stack.enter_async_context(Provider().running())
        settings, keys = _settings(folder, broker, provider)
        registry = await _registry(settings)
        opening = open_accounts(settings, lambda: registry.current.deployment.policy.classes)
        accounts = await stack.enter_async_context(opening)
        following = asyncio.create_task(accounts.directory.follow())
        await accounts.entrance.settled()
        app = await stack.enter_async_context(_application(settings, registry, accounts))
        gateway = Gateway(app, keys, provider)
        stack.enter_context(_heard(gateway.log))
        yield gateway
        following.cancel()
        await asyncio.wait([following])


def _settings(folder: Path, broker: Broker, provider: Provider) -> tuple[GatewaySettings, list[str]]:
    """Settings with all that can be configured, and the keys."""
    stage = Stage(folder)
    stage.add_key("internal", privacy="internal")
    stage.add_key("one tier", tiers=["local"])
    stage.add_key("admin", admin=True)
    (folder / "batch.key").write_text("ab" * 32)
    files = {"ca": "ca.pem", "certificate": "gateway.pem", "key": "gateway.key"}
    told: dict[str, Any] = {
        "tls": {name: folder / "tls" / file for name, file in files.items()},
        "keys_file": folder / "keys.json",
        "batch_key_file": folder / "batch.key",
        "state_dir": folder / "state",
        "nats": {"url": broker.url},
        "oidc": [{"issuer": provider.url, "audience": [AUDIENCE], "refetch_pause_s": 0.1}],
    }
    return GatewaySettings.model_validate(told), list(stage.keys.values())


async def _registry(settings: GatewaySettings) -> Registry:
    """Two tiers, one of them confidential, whose engines only say something."""
    registry = Registry(settings)
    models = [{"id": "m", "context_window": 100_000, "capabilities": ABLE, "modalities": ["text", "image", "audio"]}]
    tiers = [
        {"name": name, "base_url": "http://127.0.0.1:9/v1", "privacy": privacy, "models": models}
        for name, privacy in (("local", "restricted"), ("cloud", "public"))
    ]
    policy = {"detector": {"find": {"card_number": "internal", "secret": "restricted"}}}
    await registry.load(deployment := Deployment.model_validate({"tiers": tiers, "policy": policy}))
    entries = {}
    for name, entry in registry.current.entries.items():
        await entry.backend.aclose()
        played: Any = Played(entry.tier.models, {"m": "ok"}, {"m": Place(name, frozenset())}, hpc=False)
        entries[name] = replace(entry, backend=played)
    registry._generations[-1] = Generation(deployment, entries)
    return registry


@contextlib.asynccontextmanager
async def _application(settings: GatewaySettings, registry: Registry, accounts: Accounts) -> AsyncIterator[App]:
    """The application with all its routes, until the block ends."""
    entrance, most = accounts.entrance, settings.max_body_bytes
    judge, fitting, spending = Judge.of(settings), Fitting.of(settings), Spending(lambda: 0.0)
    book, ledger = Book("0", time.time, shared=False, lease_s=settings.lease_s), Ledger("0", time.time, kept=True)
    till = Till(spending, Meter(book, time.monotonic), ledger)
    attended, lines_way = (each(judge, fitting, till) for each in (AttendedPipeline, Pipeline))
    batches = Batches(
        settings, entrance, registry, lines_way, attended, recent := RecentAnswers(), spending, book, ledger
    )
    means = Means(entrance, registry, attended, Running(), most, ledger, recent)

    more: list[Any] = [
        explain_routes(entrance, registry, attended, most),
        feedback_routes(entrance, batches),
        message_routes(means),
        usage_routes(entrance, registry, batches),
        *admin_routes(accounts),
    ]
    await batches.start()
    try:
        await _reached(batches)
        app = App(means, endpoints(batches, registry), batches, lambda: None, lambda: more)
        await app.load()
        yield app
    finally:
        await batches.aclose()
        await judge.aclose()
        await fitting.aclose()


@contextlib.contextmanager
def _heard(log: Log) -> Iterator[None]:
    """Hear every log line that a program would write."""
    root = logging.getLogger()
    before = root.level
    root.addHandler(log)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(log)
        root.setLevel(before)


async def _reached(batches: Batches) -> None:
    """Wait for the store."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(StoreAway):
                _ = batches.files
                return
            await asyncio.sleep(0.02)


def check(sent: Sent, status: int, headers: list[tuple[bytes, bytes]], body: bytes, keys: list[str]) -> None:
    """Say what is wrong with an answer, by failing."""
    fields = {name.lower(): value for name, value in headers}
    for name, value in headers:
        assert value.isascii(), (name, value)
        assert not {b"\r"[0], b"\n"[0], 0} & set(value), (name, value)
    assert not any(key.encode() in body or key.encode() in str(headers).encode() for key in keys), "a key comes back"
    assert b"Traceback" not in body, "a trace comes back"
    assert b'File "' not in body, "a trace comes back"
    if status < 400:
        return
    if sent.method == "HEAD":
        return
    assert fields[b"content-type"].startswith(b"application/json"), fields
    said = json.loads(body)
    if sent.path.startswith("/v1/messages"):
        assert set(said) == {"type", "error", "request_id"}, said
        assert said["type"] == "error"
        assert {"type", "message"} <= set(said["error"]) <= {"type", "message", "code", "param"}, said
        code = said["error"].get("code")
    else:
        assert set(said) == {"error"}, said
        assert set(said["error"]) == {"message", "type", "param", "code"}, said
        assert {type(said["error"]["message"]), type(said["error"]["type"])} == {str}, said
        code = said["error"]["code"]
    assert len(body) < 20_000, "an error as long as what it is about"
    assert status < 500 or DECLARED.get(code) == status, (status, said)


def in_words(number: int, sent: Sent) -> str:
    """How to see a failing case again."""
    again = f"STREAM_FUZZ_SEED={SEED} STREAM_FUZZ_CASE={number}"
    where = f"{sent.method} {sent.path[:200]!r} ? {sent.query[:100]!r}"
    return f"case {number} ({again}): {where} {sent.headers} {sent.body[:2000]!r}"


async def test_no_request_breaks_the_gateway(tmp_path: Path) -> None:
    """Every case is answered in its API's form; what is logged holds no trace and no key."""
    statuses: Counter[int] = Counter()
    async with running(tmp_path) as gateway:
        requests = Requests(SEED, gateway.keys, gateway.provider)
        numbers = [int(CASE)] if CASE else range(COUNT)

        async def one(number: int) -> None:
            sent = requests.case(number)
            try:
                answer = await gateway.ask(sent)
                check(sent, *answer, gateway.keys)
            except BaseException as error:
                raise AssertionError(f"{error!r} in {in_words(number, sent)}") from error
            statuses[answer[0]] += 1

        for start in range(0, len(numbers), AT_ONCE):
            await asyncio.gather(*map(one, numbers[start : start + AT_ONCE]))
            lines = gateway.log.lines
            bad = [line for line in lines if "Traceback" in line or any(key in line for key in gateway.keys)]
            assert not bad, f"logged after one of the cases from {start}: {bad[0][:2000]}"
            lines.clear()
    sys.stdout.write(f"{sum(statuses.values())} cases of seed {SEED}: {dict(sorted(statuses.items()))}\n")
    if not CASE:
        assert {200, 400, 401, 404} <= set(statuses)
