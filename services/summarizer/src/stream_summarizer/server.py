"""The gRPC servicer: requests checked, counted and fitted in threads, a model asked beside the extraction."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

import grpc.aio

from stream_core.errors import InvalidRequest, RequestTooLarge, StreamError
from stream_core.privacy import may_see
from stream_core.rpc import summarizer_pb2 as pb
from stream_core.rpc import summarizer_pb2_grpc as rpc
from stream_core.telemetry import Once
from stream_summarizer import policy
from stream_summarizer.ahead import Ahead
from stream_summarizer.analysis import Analyses
from stream_summarizer.backend import PROMPT_TOKENS, Answer, Backend
from stream_summarizer.blocks import Blocks, block_key
from stream_summarizer.conversation import Conversation, parse
from stream_summarizer.fitting import BlockTask, Fitted, Fitting
from stream_summarizer.meters import Meters
from stream_summarizer.settings import SummarizerSettings
from stream_summarizer.shelf import Shelf, Store
from stream_summarizer.tokens import Count as TokenCount
from stream_summarizer.tokens import Counters

log = logging.getLogger(__name__)
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

MAX_DEADLINE_MS: Final = 60_000
MAX_SCOPE: Final = 256
MAX_NAME: Final = 200
LEAST_SUMMARY_TOKENS: Final = 48
LEAST_MODEL_S: Final = 0.05
"""No model answers faster; asking would only cost it work."""
MOST_ASKED: Final = 16
"""Blocks that a model is asked about while a request waits; where more are missing, extraction answers."""
AHEAD_FROM: Final = 0.5
"""Share of its window from which a conversation's blocks are summarised ahead."""
ASSEMBLY_S: Final = 0.03
"""Kept of the deadline for putting a model's summary in and counting again."""


class _Told(NamedTuple):
    """What came of asking a model about every block."""

    summaries: tuple[tuple[BlockTask, str], ...] = ()
    reason: str = ""  # why there are none
    dropped: int = 0


class _Whole(NamedTuple):
    """Nothing is condensed now."""

    reply: pb.FitReply
    ahead: tuple[BlockTask, ...] = ()


class _Work(NamedTuple):
    """What is known once a conversation has been counted and does not fit."""

    fitting: Fitting
    tasks: tuple[BlockTask, ...]
    extracted: Fitted | None = None  # where no model is asked: made at once, without another change of threads


class Summarizer(rpc.SummarizerServicer):
    """Implements `Summarizer` of protos/summarizer.proto."""

    def __init__(
        self,
        settings: SummarizerSettings,
        counters: Counters,
        backend: Backend | None,
        no_backend_reason: str,
        store: Store | None = None,
        store_key: bytes = b"",
        classes: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._counters = counters
        self._backend = backend
        self._no_backend_reason = no_backend_reason
        self._classes = classes
        self._blocks = Blocks(settings.cache_entries, settings.cache_bytes)
        self._shelf = Shelf(self._blocks, store, store_key, Once(log))
        self._ahead = Ahead(backend, self._shelf) if backend else None
        self._source_tokens = max(settings.backend_context - settings.summary_tokens - PROMPT_TOKENS, 0)
        self._analyses = Analyses(settings.cache_bytes)
        self._meters = Meters(settings.threads)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="fit")

    async def Count(self, request: pb.CountRequest, context: Context) -> pb.CountReply:  # noqa: N802  (gRPC's name)
        """Count a conversation's tokens for a model."""
        try:
            _check_names(request.target)
            tokens, exact = await self._in_thread(lambda: self._count(request))
        except StreamError as error:
            await _refuse(context, error)
            raise
        return pb.CountReply(tokens=tokens, exact=exact)

    async def Fit(self, request: pb.FitRequest, context: Context) -> pb.FitReply:  # noqa: N802  (gRPC's name)
        """Make a conversation fit a model's window."""
        started = time.monotonic()
        try:
            _check_fit(request)
            reply = await self._fit(request, started + self._deadline_s(request, context))
        except StreamError as error:
            await _refuse(context, error)
            raise
        self._meters.note(request, reply, time.monotonic() - started)
        log.info(
            "fit",
            extra={
                "request_id": request.request_id,
                "tier": request.target.tier,
                "fits": reply.fits,
                "method": pb.Method.Name(reply.method),
                "tokens_before": reply.tokens_before,
                "tokens_after": reply.tokens_after,
                "ms": round((time.monotonic() - started) * 1000, 1),
            },
        )
        return reply

    async def aclose(self) -> None:
        """Stop writing ahead and end the threads; what still runs in them, or is being kept, is finished."""
        if self._ahead is not None:
            await self._ahead.aclose()
        await self._shelf.aclose()
        self._threads.shutdown()

    async def _fit(self, request: pb.FitRequest, deadline: float) -> pb.FitReply:
        work = await self._in_thread(lambda: self._prepare(request))
        if isinstance(work, _Whole):
            for task in work.ahead:
                self._write_ahead(request.cache_scope, task)
            return work.reply
        if work.extracted is not None:
            reason = self._unseen(request) or (await self._ask_all(request.cache_scope, (), deadline)).reason
            return _reply(work.fitting, work.extracted, pb.METHOD_EXTRACT, f"extraction ({reason})")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask_all(request.cache_scope, work.tasks, deadline))
            extracting = group.create_task(self._in_thread(lambda: self._extract(request, work.fitting)))
        told, extracted = asking.result(), extracting.result()
        if told.summaries:
            summaries = told.summaries
            fitted = await self._in_thread(lambda: work.fitting.with_summaries(summaries))
            over = work.fitting.over(fitted.count)
            if over <= 0:
                return _reply(work.fitting, fitted, pb.METHOD_MODEL, self._by_model(told))
            told = _Told(reason=f"the model's summary is {over:,} tokens too long")
        return _reply(work.fitting, extracted, pb.METHOD_EXTRACT, f"extraction ({told.reason})")

    def _prepare(self, request: pb.FitRequest) -> "_Whole | _Work":
        """Count, and answer at once where nothing is to be condensed."""
        target = request.target
        fitting = Fitting(
            self._parse(request.conversation),
            self._counters.of(target.tier, target.model),
            policy.Budget(target.context_window, target.reserved_output, self._settings.safety_margin),
            self._analyses.of,
        )
        before = fitting.before
        allowed = fitting.budget.tokens(exact=before.exact)
        if before.tokens <= allowed:
            note = f"{before.tokens:,} tokens of {allowed:,}: fits as it is"
            whole = _uncondensed(before, before, note, request.conversation.messages_json)
            return _Whole(whole, self._ahead_of(request, fitting, before.tokens / max(allowed, 1)))
        if request.forbid_condensing:
            note = f"{before.tokens:,} tokens, at most {allowed:,} fit, and condensing is forbidden"
            return _Whole(_uncondensed(before, before, note))
        least = fitting.minimum
        if fitting.over(least) > 0:
            shortened = fitting.shortened()
            if shortened is None:
                allowed = fitting.budget.tokens(exact=least.exact)
                note = f"system prompt and last turn alone take {least.tokens:,} tokens, at most {allowed:,} fit"
                return _Whole(_uncondensed(before, least, note))
            fitting = shortened
        tasks: tuple[BlockTask, ...] = ()
        if self._backend is not None and not self._backend.resting and not self._unseen(request):
            tasks = fitting.block_tasks(self._settings.summary_tokens, LEAST_SUMMARY_TOKENS, self._source_tokens)
        return _Work(fitting, tasks, None if tasks else self._extract(request, fitting))

    def _ahead_of(self, request: pb.FitRequest, fitting: Fitting, filled: float) -> tuple[BlockTask, ...]:
        """List what is worth summarising before it is needed: of a conversation that fills half its window."""
        if self._ahead is None or filled < AHEAD_FROM or request.forbid_condensing or not request.cache_scope:
            return ()
        if self._unseen(request):
            return ()
        return fitting.ahead_tasks(self._settings.summary_tokens, self._source_tokens)

    def _unseen(self, request: pb.FitRequest) -> str:
        """Say why the model may not see a conversation; empty when it may, or when there is none."""
        own = self._settings.backend_privacy
        if self._backend is None or may_see(self._classes, own, request.privacy):
            return ""
        return f"the model sees text up to '{own}' only"

    async def _ask_all(self, scope: str, tasks: Sequence[BlockTask], deadline: float) -> "_Told":
        """Get the summary of every block, or the reason why one is missing; what is missing is written ahead."""
        if self._backend is None:
            return _Told(reason=self._no_backend_reason)
        if not tasks:
            return _Told(reason=self._backend.resting or "no room for a model's summary")
        known = {task.key: await self._shelf.get(self._key(scope, task)) for task in tasks}
        missing = [task for task in tasks if known[task.key] is None]
        if len(missing) > MOST_ASKED:
            for task in missing:
                self._write_ahead(scope, task)
            return _Told(reason=f"{len(missing)} blocks are not summarised yet")
        with self._backend.awaited():
            answers = await asyncio.gather(*(self._ask(scope, task, deadline) for task in missing))
        reason = next((answer.reason for answer in answers if answer.reason and not answer.silent), "")
        if reason:
            return _Told(reason=reason)
        known |= {task.key: answer.text for task, answer in zip(missing, answers, strict=True)}
        summaries = tuple((task, text) for task in tasks if (text := known[task.key]))
        if not summaries:
            return _Told(reason=next((answer.reason for answer in answers), "the model had nothing to say"))
        return _Told(summaries, dropped=sum(answer.dropped for answer in answers))

    async def _ask(self, scope: str, task: BlockTask, deadline: float) -> Answer:
        backend = self._backend
        left = deadline - time.monotonic() - ASSEMBLY_S
        if backend is None or left < LEAST_MODEL_S:
            answer = Answer(reason="no time was left to ask the model")
        else:
            answer = await backend.condense(task.text, task.summary_tokens, left)
        if answer.text or answer.silent:
            self._shelf.put(self._key(scope, task), answer.text)
        else:
            self._write_ahead(scope, task)
        return answer

    def _write_ahead(self, scope: str, task: BlockTask) -> None:
        if self._ahead is not None:
            self._ahead.add(self._key(scope, task), task)

    def _key(self, scope: str, task: BlockTask) -> bytes | None:
        return block_key(scope, f"model {self._backend.model if self._backend else ''}", task.key)

    def _extract(self, request: pb.FitRequest, fitting: Fitting) -> Fitted:
        kind = f"extract {request.target.tier} {request.target.model}"

        def remember(content: bytes, make: Callable[[], str]) -> str:
            return self._blocks.get_or_make(block_key(request.cache_scope, kind, content), make)

        return fitting.extracted(remember)

    def _by_model(self, told: "_Told") -> str:
        name = self._backend.model if self._backend else ""
        dropped = f", {told.dropped} unsupported sentences dropped" if told.dropped else ""
        return f"the model {_ascii(name)}{dropped}"

    def _count(self, request: pb.CountRequest) -> TokenCount:
        conversation = self._parse(request.conversation)
        counter = self._counters.of(request.target.tier, request.target.model)
        return counter.prompt(conversation.messages, conversation.tools)

    def _parse(self, conversation: pb.Conversation) -> Conversation:
        size = len(conversation.messages_json) + len(conversation.tools_json)
        if size > self._settings.max_bytes:
            raise RequestTooLarge(
                f"conversation: {size:,} bytes, at most {self._settings.max_bytes:,}", param="conversation"
            )
        return parse(conversation.messages_json, conversation.tools_json, max_messages=self._settings.max_messages)

    def _deadline_s(self, request: pb.FitRequest, context: Context) -> float:
        """Seconds: the request's own, never more than the caller waits."""
        own = (request.deadline_ms or self._settings.deadline_ms) / 1000
        caller = context.time_remaining()
        return own if caller is None else min(own, caller)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        asked = time.perf_counter()

        def timed() -> T:
            self._meters.waited(time.perf_counter() - asked)
            return work()

        self._meters.working += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, timed)
        finally:
            self._meters.working -= 1


def _uncondensed(before: TokenCount, after: TokenCount, note: str, messages_json: bytes | None = None) -> pb.FitReply:
    """Build the reply where nothing was condensed; without messages the conversation does not fit."""
    return pb.FitReply(
        fits=messages_json is not None,
        messages_json=messages_json,
        method=pb.METHOD_UNSPECIFIED if messages_json is None else pb.METHOD_UNCHANGED,
        tokens_before=before.tokens,
        tokens_after=after.tokens,
        exact=after.exact,
        note=_estimated(note, exact=before.exact and after.exact),
    )


def _reply(fitting: Fitting, fitted: Fitted, method: pb.Method, how: str) -> pb.FitReply:
    before, after = fitting.before, fitted.count
    spans = policy.in_words(fitted.spans)
    done = f"condensed by {how}" if fitted.summarised else "left out, there is no room for a summary"
    allowed = fitting.budget.tokens(exact=after.exact)
    note = f"{before.tokens:,} tokens became {after.tokens:,} of {allowed:,}; messages {spans} {done}"
    return pb.FitReply(
        fits=True,
        messages_json=policy.as_json(fitted.messages),
        method=method,
        tokens_before=before.tokens,
        tokens_after=after.tokens,
        exact=after.exact,
        condensed=[pb.TurnRange(first=span.first, last=span.last) for span in fitted.spans],
        note=_estimated(note, exact=before.exact and after.exact),
    )


def _estimated(note: str, *, exact: bool) -> str:
    return note if exact else f"{note} (token counts are estimates)"


def _ascii(text: str) -> str:
    """Make a name fit for a response header."""
    return "".join(character if character.isascii() and character.isprintable() else "?" for character in text)


def _check_names(target: pb.Target) -> None:
    for field, value in (("target.tier", target.tier), ("target.model", target.model)):
        if len(value) > MAX_NAME:
            raise InvalidRequest(f"{field}: {len(value)} characters, at most {MAX_NAME}", param=field)


def _check_fit(request: pb.FitRequest) -> None:
    target = request.target
    _check_names(target)
    if len(request.privacy) > MAX_NAME:
        raise InvalidRequest(f"privacy: {len(request.privacy)} characters, at most {MAX_NAME}", param="privacy")
    if target.context_window < 1:
        raise InvalidRequest("target.context_window: 0 tokens, at least 1", param="target.context_window")
    if target.reserved_output >= target.context_window:
        raise InvalidRequest(
            f"target.reserved_output: {target.reserved_output:,} tokens, at most {target.context_window - 1:,},"
            " one less than target.context_window",
            param="target.reserved_output",
        )
    if request.deadline_ms > MAX_DEADLINE_MS:
        raise InvalidRequest(f"deadline_ms: {request.deadline_ms:,}, at most {MAX_DEADLINE_MS:,}", param="deadline_ms")
    if len(request.cache_scope) > MAX_SCOPE:
        raise InvalidRequest(
            f"cache_scope: {len(request.cache_scope)} characters, at most {MAX_SCOPE}", param="cache_scope"
        )


async def _refuse(context: Context, error: StreamError) -> None:
    """Translate an error to gRPC; the one place that does."""
    code = grpc.StatusCode.INVALID_ARGUMENT if isinstance(error, InvalidRequest) else grpc.StatusCode.INTERNAL
    await context.abort(code, error.message)
