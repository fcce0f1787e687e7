"""All of the gateway's own road with real judge and summarizer, and recording places where text leaves it.

Real: dialects, routes, pipeline, policy, detector, batch executor, the judge's and the summarizer's servicers. Played:
engines, the language models of judge and summarizer, the store of responses, and the keys, each in a few lines.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson

from stream_core.audit.entries import Chain
from stream_core.deployment import Deployment
from stream_core.errors import UpstreamRejected, UpstreamUnavailable
from stream_core.ids import new_id
from stream_core.openai.models import parse_chat
from stream_core.openai.requests import parse_completion, parse_embedding
from stream_core.privacy import may_see
from stream_core.settings import TlsFiles
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.contract import Call, OfferedModel, offered
from stream_gateway.backends.registry import Entry, Generation
from stream_gateway.batches.execute import Executor
from stream_gateway.batches.execute import _Exchange as LineExchange
from stream_gateway.batches.lines import Good
from stream_gateway.batches.records import BatchRecord
from stream_gateway.dialects.messages import MessagesDialect
from stream_gateway.dialects.plain import PlainDialect
from stream_gateway.dialects.responses import ResponsesDialect
from stream_gateway.feedback import RecentAnswers, demand_kept
from stream_gateway.fitting import Fitting
from stream_gateway.judging import Judge
from stream_gateway.ledger.writer import Ledger, Slip
from stream_gateway.lifeline import Running
from stream_gateway.limits.book import Book
from stream_gateway.limits.meter import Meter
from stream_gateway.pipeline import Asked, Pipeline
from stream_gateway.responses.archive import Conversation
from stream_gateway.responses.ids import NoSuchResponse
from stream_gateway.routes.asking import AskRoute, Means
from stream_gateway.routing import request_class
from stream_gateway.spending import Spending
from stream_gateway.standing import Standing
from stream_gateway.till import Till
from stream_judge.__main__ import read_weights
from stream_judge.classify import Classifier, LearnedBackend
from stream_judge.llm import LlmBackend
from stream_judge.query import Limits
from stream_judge.server import JudgeServicer
from stream_judge.settings import LlmSettings
from stream_summarizer.backend import Answer as Summary
from stream_summarizer.backend import Backend
from stream_summarizer.server import Summarizer
from stream_summarizer.settings import SummarizerSettings
from stream_summarizer.tokens import Counters

TLS = TlsFiles.model_construct()
WEIGHTS = read_weights(None)
GRADES = {"choices": [{"logprobs": {"content": [{"token": "A", "top_logprobs": [{"token": "A", "logprob": -0.1}]}]}}]}


@dataclass
class Place:
    """Where text may go, and all that went there."""

    name: str
    classes: frozenset[str]
    """It may see no text beyond any of these."""
    texts: list[str] = field(default_factory=list)


class Played:
    """A tier's backend: it answers, or fails as its script says."""

    def __init__(self, models: list[Any], script: Mapping[str, str], places: Mapping[str, Place], *, hpc: bool) -> None:
        self._models = models
        self._script = script
        self._places = places
        self._hpc = hpc

    def models(self) -> list[OfferedModel]:
        return [offered(model) for model in self._models]

    def unavailable(self, model: str) -> str | None:
        return "it is away" if self._script[model] == "away" else None

    def standings(self, model: str) -> dict[str, Standing]:
        if not self._hpc:
            return {}
        state = {"away": "offline", "cold": "cold"}.get(self._script[model], "hot")
        return {"one": Standing(state, room=1 if state == "cold" else 0), "two": Standing("offline")}  # type: ignore[arg-type]

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        pass

    def note(self) -> str:
        return ""

    async def open(self, call: Call) -> "PlayedAnswer":
        sent = orjson.dumps([dict(call.request), dict(call.headers), call.path]).decode()
        self._places[call.model].texts.append(sent)
        match self._script[call.model]:
            case "unavailable" | "away" | "cold":
                raise UpstreamUnavailable("not now")
            case "busy":
                raise UpstreamRejected("busy", status=429, body=b'{"error":{}}', content_type="application/json")
            case "refuses":
                raise UpstreamRejected("no", status=400, body=b'{"error":{}}', content_type="application/json")
            case _:
                return PlayedAnswer(call, broken=self._script[call.model] == "broken")


class PlayedAnswer:
    """It says again what it was asked."""

    cluster = ""

    def __init__(self, call: Call, *, broken: bool) -> None:
        self.content_type = "text/event-stream" if call.stream else "application/json"
        said = " ".join(word for word in orjson.dumps(dict(call.request)).decode().split('"') if "mark" in word)[:500]
        self._batches: list[list[bytes]] = []
        if broken:
            return
        if call.stream:
            delta = {"choices": [{"index": 0, "delta": {"content": said}, "finish_reason": "stop"}]}
            self._batches = [[b"data: " + orjson.dumps(delta) + b"\n\n"], [b"data: [DONE]\n\n"]]
        else:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": said},
                "text": said,
                "finish_reason": "stop",
            }
            self._batches = [[orjson.dumps({"choices": [choice], "data": [], "tokens": [1, 2], "count": 2})]]

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        for batch in self._batches:
            yield batch

    async def aclose(self) -> None:
        pass


class Grader:
    """The judge's language model, in the place of an HTTP session."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @contextlib.asynccontextmanager
    async def post(self, url: str, json: Any) -> AsyncIterator[Any]:
        self._place.texts.append(orjson.dumps([url, json]).decode())

        async def read(_: int) -> bytes:
            return orjson.dumps(GRADES)

        yield SimpleNamespace(raise_for_status=lambda: None, content=SimpleNamespace(read=read))


class Condenser(Backend):
    """The summarizer's language model."""

    def __init__(self, place: Place) -> None:
        super().__init__("http://nowhere", "condenser", "")
        self._place = place

    async def condense(self, source: str, max_tokens: int, deadline_s: float) -> Summary:
        self._place.texts.append(source)
        return Summary(text=f"They spoke of {source.rsplit('mark', maxsplit=1)[-1][:6]}.")


class Wire:
    """A service's servicer in the place of its gRPC stub."""

    def __init__(self, **methods: Any) -> None:
        context = SimpleNamespace(time_remaining=lambda: None, invocation_metadata=tuple)
        for name, method in methods.items():
            setattr(self, name, lambda request, timeout, metadata=None, method=method: method(request, context))


class Shelf:
    """The store of responses."""

    limits = None

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Conversation] = {}

    def check_size(self, size: int) -> None:
        pass

    async def keep(self, owner: str, conversation: Conversation) -> None:
        self.kept[owner, conversation.response["id"]] = conversation

    async def find(self, owner: str, id_: str) -> Conversation:
        if (owner, id_) not in self.kept:
            raise NoSuchResponse("none", param="response_id")
        return self.kept[owner, id_]


class Papers:
    """The ledger's way to the broker: every entry and intent, as it is written."""

    connected = True

    def __init__(self, place: Place) -> None:
        self._place = place

    async def open_chain(self, chain: Chain, at: float) -> None:
        chain.add("opened", at)

    async def send(self, chain: str, name: str, slip: Slip) -> None:
        self._place.texts.append(f"{chain} {name} {slip.entry} {msgspec.json.encode(slip.intent).decode()}")


class Log(logging.Handler):
    """Every line that any program writes, with its fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__}")


@dataclass
class Reply:
    """What a client got."""

    status: int
    headers: str
    body: bytes


class Realm:
    """One deployment and its places."""

    def __init__(
        self,
        deployment: Deployment,
        scripts: Mapping[str, Mapping[str, str]],
        *,
        judge_class: str,
        summarizer_class: str,
        ledger_class: str,
        thumbs_class: str,
    ) -> None:
        classes = deployment.policy.classes
        self.deployment = deployment
        self.judge = Place("the judge's model", frozenset({judge_class}))
        self.summarizer = Place("the summarizer's model", frozenset({summarizer_class}))
        self.thumbs = Place("feedback", frozenset({thumbs_class}))
        papers = Place("ledger", frozenset({ledger_class}))
        self.places = [self.judge, self.summarizer, self.thumbs, papers]
        entries = {}
        for tier in deployment.tiers:
            seeing = {
                model.id: Place(f"{tier.name}/{model.id}", frozenset({tier.privacy, model.privacy or tier.privacy}))
                for model in tier.models
            }
            self.places += seeing.values()
            backend = Played(tier.models, scripts[tier.name], seeing, hpc=tier.kind == "hpc")
            entries[tier.name] = Entry(tier, (), backend)  # type: ignore[arg-type]  # a backend in all that is asked
        self.generation = Generation(deployment, entries)
        self.principal = Principal("key-1", None, None)
        self.log = Log()
        learned = LearnedBackend(WEIGHTS)
        grader = LlmBackend(
            Grader(self.judge),  # type: ignore[arg-type]  # as far as it is used
            LlmSettings(base_url="http://nowhere", model="grader", privacy=judge_class),
            learned,
            "Grade.",
            classes,
        )
        servicer = JudgeServicer(Classifier(grader, cache_entries=64), Limits())
        judge = Judge("", TLS, deadline_s=10, default_score=0.5)
        judge._stub = Wire(Score=servicer.Score)  # type: ignore[assignment]
        settings = SummarizerSettings(tls=TLS, backend_privacy=summarizer_class, deadline_ms=20_000)
        self._summarizer = Summarizer(
            settings,
            Counters(deployment, 1600, lambda: None),
            Condenser(self.summarizer),
            "",
            classes=classes,  # type: ignore[arg-type,return-value]
        )
        fitting = Fitting("", TLS, deadline_s=10)
        fitting._stub = Wire(Fit=self._summarizer.Fit)  # type: ignore[assignment]
        meter = Meter(Book("0", lambda: 0.0, shared=False, lease_s=60), lambda: 0.0)
        ledger = Ledger("0", lambda: 0.0, kept=True, may_hold=partial(may_see, classes, ledger_class))
        self._ledger, self._road = ledger, Papers(papers)
        till = Till(Spending(lambda: 0.0), meter, ledger)
        self.pipeline = Pipeline(judge, fitting, till)
        self.recent = RecentAnswers()
        means = Means(self, self, self.pipeline, Running(), 1 << 24, ledger, self.recent)  # type: ignore[arg-type]  # a registry in all that is asked
        self.shelf = Shelf()
        stored: Any = SimpleNamespace(archive=self.shelf, tried=partial(asyncio.sleep, 0))
        self._routes = {
            "chat": AskRoute(means, PlainDialect()),
            "completions": AskRoute(means, PlainDialect(parse_completion)),
            "embeddings": AskRoute(means, PlainDialect(parse_embedding)),
            "messages": AskRoute(means, MessagesDialect()),
            "responses": AskRoute(means, ResponsesDialect(stored, self)),  # type: ignore[arg-type]
        }
        self._executor = Executor(None, self, self.pipeline, ledger, 1 << 20)  # type: ignore[arg-type]

    async def authenticate(self, _: Any) -> Principal:
        """Let everybody in as whoever is asking now."""
        return self.principal

    @property
    def current(self) -> Generation:
        return self.generation

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[Generation]:
        yield self.generation

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear every log line while the block runs."""
        root = logging.getLogger()
        before = root.level
        root.addHandler(self.log)
        root.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            root.removeHandler(self.log)
            root.setLevel(before)

    async def aclose(self) -> None:
        self._writing.cancel()
        await asyncio.wait([self._writing])
        await self._summarizer.aclose()

    async def open(self) -> None:
        """Begin to write the ledger."""
        await self._ledger.opened(self._road)
        self._writing = asyncio.create_task(self._ledger.follow())

    async def thumb(self, request_id: str, prompt: str, header: str | None) -> None:
        """Say that an answer was good, and send the prompt along."""
        answered = self.recent.find(request_id)
        assert answered is not None
        policy = self.deployment.policy
        (most,) = self.thumbs.classes
        classes = (answered.privacy, request_class(policy, self.principal.privacy, header))
        await demand_kept(most, policy, self.generation.detector, prompt, classes)
        self.thumbs.texts.append(prompt)

    async def settle(self) -> None:
        """Let what is written ahead, and what is noted, be written."""
        await self._ledger._empty.wait()
        ahead: Any = self._summarizer._ahead
        while ahead._waiting:  # noqa: ASYNC110  (its worker tells nobody)
            await asyncio.sleep(0)

    async def ask(self, api: str, body: dict[str, Any], header: str | None) -> Reply:
        """Go the whole way of a request over one of the APIs."""
        headers = [(b"authorization", b"Bearer x"), (b"content-type", b"application/json")]
        headers += [(b"x-stream-privacy", header.encode())] if header is not None else []
        inbox = iter([{"type": "http.request", "body": orjson.dumps(body), "more_body": False}])
        sent: list[Any] = []

        async def receive() -> Any:
            message = next(inbox, None)
            if message is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": f"/v1/{api}", "headers": headers}
        await self._routes[api](scope, receive, send)
        start = sent[0]
        return Reply(start["status"], str(start["headers"]), b"".join(each.get("body", b"") for each in sent[1:]))

    async def line(self, body: dict[str, Any], privacy: str) -> None:
        """Run a line of a batch whose file, key and header had this class together."""
        data = orjson.dumps(body)
        record = BatchRecord("batch_1", "key-1", "/v1/chat/completions", "f", "o", "e", "24h", privacy, 0.0, 1e12, 1e12)
        exchange = LineExchange(self.principal, body)
        try:
            await self._executor._exchange(record, Good("id", parse_chat(data), len(data)), exchange)
        finally:
            exchange.note(self._ledger)

    async def explain(self, body: dict[str, Any], header: str | None) -> None:
        """Ask where a request would go, and how many tokens it has."""
        data = orjson.dumps(body)
        asked = Asked(new_id(), self.principal, parse_chat(data), len(data), header, {}, tell=None)
        await self.pipeline.explain(asked, self.generation)
        await self.pipeline.count(asked, self.generation)


MARKS = itertools.count()
