"""One line of a batch: found in its file, asked like any other request, its answer written down.

The line's message is acknowledged only when its result is kept. Whoever dies before that leaves it to another one;
a line that ran twice still has one result.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from stream_core.broker_client import NatsError
from stream_core.errors import FrameError, InvalidRequest, RemoteError, SealError, StreamError
from stream_core.ids import new_id, to_hex
from stream_core.openai.chunks import usage_of_body
from stream_core.trace_context import CURRENT
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.faults import StoreAway
from stream_gateway.batches.lines import Bad, Good, Line, check
from stream_gateway.batches.outcomes import answered, not_run, refused
from stream_gateway.batches.records import BatchRecord, Result
from stream_gateway.batches.results import Taken
from stream_gateway.batches.retries import is_pushback, pause_s
from stream_gateway.batches.store import Store
from stream_gateway.ledger.noting import fields_of
from stream_gateway.ledger.writer import Ledger
from stream_gateway.limits.refusals import RateExceeded
from stream_gateway.phases import Phases
from stream_gateway.pipeline import Asked, Pipeline, Trail
from stream_gateway.request_trace import RequestTrace
from stream_gateway.stream import MOST_KEPT, Outcome
from stream_gateway.telemetry import Stopwatch, log_request

_log = logging.getLogger(__name__)
_LONGEST_ANSWER: Final = 32 * 1024 * 1024
_STORE_RETRY_S: Final = 0.5


class AnswerTooLong(InvalidRequest):
    """An engine's answer that is larger than a result may be."""

    code = "answer_too_large"


@dataclass(frozen=True, slots=True)
class Again:
    """The line is to be asked again."""

    pause_s: float
    pushback: bool
    """Nobody had room for it."""
    limited: bool = False
    """Its owner has to wait."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a line went, for those that come next."""

    room: bool = True
    """Whether somebody had room for it."""
    rest_s: float = 0.0
    """For how long a limit of its owner lets no line pass."""


class Executor:
    """Runs lines.

    Args:
        store: where they are.
        registry: the tiers.
        pipeline: the way of a request, not the one of interactive requests.
        ledger: where each is noted.
        max_line: bytes of the longest line.
    """

    def __init__(self, store: Store, registry: Registry, pipeline: Pipeline, ledger: Ledger, max_line: int) -> None:
        self._store = store
        self._registry = registry
        self._pipeline = pipeline
        self._ledger = ledger
        self._max_line = max_line
        self._lost: Counter[tuple[str, int]] = Counter()
        """How often each line that is tried again was lost here. Deliveries tell less: they count refusals, too."""

    async def run(self, batch: BatchRecord, taken: Taken, principal: Principal, redeliver_s: float) -> Ran:
        """Run a line to its result, or put it back.

        Args:
            batch: whose line it is.
            taken: from its queue.
            principal: the owner, as it is now.
            redeliver_s: a sign of life is due more often than this.

        Returns:
            How it went for those that come next.
        """
        alive = asyncio.create_task(_keep_alive(taken, redeliver_s / 3))
        try:
            if await self._store.results.is_done(batch.id, taken.number):
                await taken.message.ack()
                return Ran()
            outcome = await self._ask(batch, taken, principal)
            if isinstance(outcome, Again):
                await taken.message.nak(delay=outcome.pause_s)
                return Ran(room=not outcome.pushback, rest_s=outcome.pause_s if outcome.limited else 0.0)
            self._lost.pop((batch.id, taken.number), None)
            await self._keep(batch, taken, outcome)
            await taken.message.ack()
        except asyncio.CancelledError:
            with contextlib.suppress(NatsError, OSError):
                await taken.message.nak()
            raise
        except (StoreAway, NatsError, OSError) as error:
            # Not acknowledged: it comes again when the store is back.
            _log.info("line put back: %s", error, extra={"batch": batch.id, "line": taken.number})
        except Exception:  # noqa: BLE001  (likewise, and a bug must not be silent)
            _log.exception("line put back", extra={"batch": batch.id, "line": taken.number})
        finally:
            alive.cancel()
        return Ran()

    async def _keep(self, batch: BatchRecord, taken: Taken, result: Result) -> None:
        """Write a result down; an answer that was paid for waits for the store as long as the batch may last."""
        while True:
            ttl_s = batch.output_expires - self._store.clock()
            try:
                await self._store.results.put(batch.id, taken.number, result, ttl_s)
            except StoreAway:
                if self._store.clock() > batch.expires:
                    raise
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                return

    async def _ask(self, batch: BatchRecord, taken: Taken, principal: Principal) -> Result | Again:
        work = taken.work
        try:
            data = await self._store.contents.cut(batch.input_file, work.offset, work.length)
        except (FrameError, SealError) as error:
            return not_run(batch.id, taken.number, None, code="input_unreadable", message=error.message)
        line = check(Line(taken.number, work.offset, work.length, data), batch.endpoint, self._max_line)
        if isinstance(line, Bad):
            words = f"line {taken.number}: {line.message}"
            return not_run(batch.id, taken.number, line.custom_id, code="invalid_line", message=words)
        del data
        exchange = _Exchange(principal, line.chat.body)
        try:
            return await self._exchange(batch, line, exchange)
        except StreamError as error:
            exchange.ended = error.code
            place, pushback = (batch.id, taken.number), is_pushback(error)
            self._lost[place] += not pushback
            pause = pause_s(error, self._lost[place])
            if pause is not None:
                exchange.again = True
                return Again(pause, pushback, limited=isinstance(error, RateExceeded))
            del self._lost[place]
            exchange.outcome.status = error.status_hint
            return refused(line.custom_id, exchange.id, error)
        except Exception as error:  # noqa: BLE001  (the edge: one line's bug must not stop all others)
            exchange.ended = "internal_error"
            _log.error("line failed", exc_info=error, extra={"batch": batch.id, "line": taken.number})
            words = f"internal error, request {exchange.id}"
            return not_run(batch.id, taken.number, line.custom_id, code="internal_error", message=words)
        finally:
            sent = exchange.outcome
            sent.spent = self._pipeline.ended(exchange.request_id, sent.usage, 0, again=exchange.again)
            exchange.note(self._ledger)
            exchange.log()
            CURRENT.set(None)

    async def _exchange(self, batch: BatchRecord, line: Good, exchange: "_Exchange") -> Result:
        exchange.trace.begin("batch line", batch.endpoint, exchange.id, None, exchange.phases)
        asked = Asked(
            request_id=exchange.request_id,
            principal=exchange.principal,
            chat=line.chat,
            body_bytes=line.body_bytes,
            privacy=batch.privacy,
            trace={},
            phases=exchange.phases,
            tell=None,  # the queue is where lines wait; the attempt itself wakes a cold pool
        )
        async with self._registry.hold() as generation:
            begun = await self._pipeline.begin(asked, generation, exchange.trail)
            exchange.stopwatch.first_token()
            exchange.trace.first_token(exchange.phases)
            try:
                body = bytearray().join(begun.first)
                async for chunks in begun.rest:
                    body += b"".join(chunks)
                    if len(body) > _LONGEST_ANSWER:
                        words = f"the answer has {len(body):,} bytes or more, at most {_LONGEST_ANSWER:,} are kept"
                        raise AnswerTooLong(words)
            finally:
                await begun.answer.aclose()
        result = answered(line.custom_id, exchange.id, 200, bytes(body))
        if result is None:
            raise RemoteError("the engine's answer is no JSON")
        exchange.outcome.status = 200
        exchange.outcome.sent(bytes(body))
        exchange.outcome.usage = usage_of_body(bytes(body))
        return result


class _Exchange:
    """One attempt and what has become of it."""

    def __init__(self, principal: Principal, body: Mapping[str, Any]) -> None:
        self.principal = principal
        self.prompt = orjson.dumps(body)[:MOST_KEPT] if principal.keeps_content else None
        self.request_id = new_id()
        self.id = to_hex(self.request_id)
        self.trail = Trail()
        self.outcome = Outcome()
        self.stopwatch = Stopwatch()
        self.phases = Phases()
        self.trace = RequestTrace()
        self.ended = "complete"
        self.again = False
        if principal.keeps_content:
            self.outcome.kept = bytearray()

    def note(self, ledger: Ledger) -> None:
        """Write it into the ledger; what nobody answered and comes again is no request."""
        if self.again and self.outcome.spent.tokens is None:
            ledger.withdraw(self.request_id, self.id)
            return
        said = fields_of(
            self.id,
            self.principal,
            self.trail,
            self.outcome,
            self.stopwatch,
            ended=self.ended,
            stream=False,
            batch=True,
            prompt=self.prompt,
        )
        ledger.note(self.request_id, said)

    def log(self) -> None:
        """Write the request's line."""
        log_request(
            self.id,
            key=self.principal.id,
            stream=False,
            trail=self.trail,
            outcome=self.outcome,
            stopwatch=self.stopwatch,
            ended=self.ended,
            phases=self.phases,
        )
        self.trace.end(self.trail, self.outcome, self.ended, stream=False)


async def _keep_alive(taken: Taken, interval_s: float) -> None:
    """Say that a line is still worked on, until cancelled."""
    while True:
        await asyncio.sleep(interval_s)
        with contextlib.suppress(NatsError, OSError):
            await taken.message.in_progress()
