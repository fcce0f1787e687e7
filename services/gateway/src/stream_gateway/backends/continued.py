"""An answer that goes on when its worker is lost: on another worker of the same model, as one unbroken stream.

    nothing was sent yet (also: every answer that is not streamed)   asked again from the start
    text was sent                                                    continued: `continued_state` says how
    only usage or end were missing                                   completed here
    anything else: a tool call, n > 1, JSON, reasoning               StreamBroken, which the caller may retry

Workers that lost this answer are not asked again. Where no other one is ready and something was sent already, a
successor is waited for.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from stream_core.errors import RemoteError, StreamBroken, UpstreamUnavailable
from stream_core.ids import to_hex
from stream_core.openai.chunks import usage_of_body
from stream_core.openai.models import CHAT
from stream_gateway.backends import continued_request as requests
from stream_gateway.backends.continued_state import Continuation, State
from stream_gateway.backends.contract import Answer, Call
from stream_gateway.pool import PooledWorker

_log = logging.getLogger(__name__)
_EVENTS: Final = "text/event-stream"
_MAX_SIDE_ANSWER: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Persistence:
    """How hard an answer tries to go on."""

    times: int = 3
    """Workers that may take over, one after the other."""
    wait_s: float = 20.0
    """For another worker to become ready."""
    settle_s: float = 2.0
    """A worker that failed an answer and is still ready after this long has a broken engine, and no successor."""
    poll_s: float = 0.05
    """Between two looks at the pool."""
    busy_s: float = 0.5
    """Before workers that refused are asked again."""
    side_s: float = 5.0
    """For the answer to a question about tokens."""


class Workers(Protocol):
    """A tier's workers, as a continuation asks for them."""

    echoes: dict[tuple[str, str], bool]
    """(cluster, model) -> whether the engine says a given text again; what is known so far."""

    def choose(self, call: Call, without: set[bytes]) -> PooledWorker | None:
        """Find the best ready worker that may answer a call, without these leases."""
        ...

    def is_ready(self, lease_id: bytes) -> bool:
        """Whether a worker is still offered."""
        ...

    def lost(self, worker: PooledWorker) -> None:
        """A worker did not finish an answer."""
        ...

    def wake(self, model: str, clusters: frozenset[str] | None) -> None:
        """Ask for a worker to be started on one of these clusters."""
        ...

    async def open_on(self, call: Call, worker: PooledWorker) -> Answer:
        """Open a call on this very worker; errors as of `Backend.open`."""
        ...


class ContinuedAnswer:
    """See the module, and `stream_gateway.backends.contract.Answer`.

    Args:
        answer: that has begun.
        worker: that gives it.
        call: what was asked.
        workers: that may take over.
        persistence: how often, and how long to wait.
    """

    def __init__(
        self, answer: Answer, worker: PooledWorker, call: Call, workers: Workers, persistence: Persistence
    ) -> None:
        self.content_type = answer.content_type
        self.cluster = worker.cluster
        self._answer = answer
        self._worker = worker
        self._call = call
        self._workers = workers
        self._persistence = persistence
        self._lost: set[bytes] = set()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Batches of chunks; see the contract."""
        if not self.content_type.startswith(_EVENTS):
            return self._whole()
        if self._call.path != CHAT or requests.obstacle(self._call.request) is not None:
            return self._unread()
        return self._continued()

    async def aclose(self) -> None:
        """Stop whichever worker has it."""
        self._closed = True
        await self._answer.aclose()

    async def _whole(self) -> AsyncIterator[list[bytes]]:
        """Nothing leaves before all of it is there: it can always be asked for again."""
        while True:
            chunks: list[bytes] = []
            try:
                async for batch in self._answer:
                    chunks += batch
            except (StreamBroken, UpstreamUnavailable) as error:
                await self._again(error)
            else:
                if chunks:
                    yield chunks
                return

    async def _unread(self) -> AsyncIterator[list[bytes]]:
        """A stream that can't be continued is not looked at; until its first event it can be asked for again."""
        sent = False
        while True:
            try:
                async for batch in self._answer:
                    sent = True
                    yield batch
            except (StreamBroken, UpstreamUnavailable) as error:
                if sent:
                    raise
                await self._again(error)
            else:
                return

    async def _continued(self) -> AsyncIterator[list[bytes]]:
        text = Continuation()
        sent = False
        while True:
            try:
                async for batch in self._answer:
                    events = text.feed(batch)
                    if text.state is State.DOUBT:
                        events += text.settle(echo=await self._is_echo())
                    if events:
                        sent = True
                        yield events
            except (StreamBroken, UpstreamUnavailable) as error:
                if text.state is State.COMPLETE:
                    return
                if not sent:
                    await self._again(error)
                    text = Continuation()
                    continue
                ending = await self._go_on(text, error)
            else:
                return
            if ending:
                yield ending
                return

    async def _again(self, error: RemoteError) -> None:
        """Ask another worker from the start."""

        async def ask(worker: PooledWorker) -> None:
            self._answer = await self._open(self._call, worker)

        # Nothing was sent: another tier, or the caller's own next attempt, is better than to wait here.
        await self._with_another(ask, error, wait_s=0.0)

    async def _go_on(self, text: Continuation, error: RemoteError) -> list[bytes]:
        """Find out what is missing and ask another worker for it.

        Returns:
            The events that end the answer, when all of its text was sent; else none.
        """
        if text.state is State.REFUSED:
            raise error
        usage = requests.wants_usage(self._call.request) and not self._call.usage_for_us and not text.usage_sent
        if text.state is State.FINISHED and not usage:
            return text.ending()
        if text.state is State.FINISHED and not text.textual:
            raise error
        ending: list[bytes] = []

        async def ask(worker: PooledWorker) -> None:
            ending[:] = await self._go_on_with(worker, text, usage=usage)

        await self._with_another(ask, error, wait_s=self._persistence.wait_s)
        return ending

    async def _go_on_with(self, worker: PooledWorker, text: Continuation, *, usage: bool) -> list[bytes]:
        request, given = self._call.request, text.given
        if not given and text.state is not State.FINISHED:
            self._answer = await self._open(self._call, worker)
            text.go_on(prompt=None, echo=False)
            return []
        limit = requests.token_limit(request)
        finished = text.state is State.FINISHED
        whole = requests.with_given(request, given)
        prompt, total = await asyncio.gather(
            self._prompt_tokens(worker, request, wanted=text.prompt is None and (usage or limit is not None)),
            self._prompt_tokens(worker, whole, wanted=finished or limit is not None),
        )
        prompt = text.prompt if prompt is None else prompt
        if finished:
            if prompt is None or total is None:
                raise RemoteError("it could not count the answer's tokens")
            text.prompt = prompt
            # Tokens that end an answer without a text are not seen here.
            return text.ending(total=total, exact=False)
        # Fewer events than tokens may have come: without a measurement the limit is kept by counting events.
        spent = text.deltas if prompt is None or total is None else total - prompt
        if limit is not None and spent >= limit:
            if usage and (prompt is None or total is None):
                raise RemoteError("it could not count the answer's tokens")
            text.prompt = prompt
            return text.ending(finish="length", total=total if usage else None)
        rest = requests.continuation(request, given, spent)
        # An engine that refuses the flags is not asked without them: it would begin a new turn, unnoticed.
        self._answer = await self._open(replace(self._call, request=rest), worker)
        declared = requests.DECLARED in worker.models[self._call.model].capabilities
        text.go_on(prompt=prompt, echo=False if declared else self._workers.echoes.get(self._key(worker)))
        return []

    async def _with_another(self, ask: "_Ask", error: RemoteError, *, wait_s: float) -> None:
        """Let another worker do it, the best first; wait for one where there is none.

        Args:
            ask: one worker.
            error: what ended the last attempt.
            wait_s: for a worker to become ready.

        Raises:
            StreamBroken: there is none within the limit, or the answer was lost too often.
        """
        await self._answer.aclose()
        self._lost.add(self._worker.lease_id)
        self._workers.lost(self._worker)
        self._moved(None)
        if self._closed or len(self._lost) > self._persistence.times:
            raise error
        model, loop = self._call.model, asyncio.get_running_loop()
        began = loop.time()
        asked = False
        reason = error.message
        while True:
            tried = set(self._lost)
            while worker := self._workers.choose(self._call, tried):
                tried.add(worker.lease_id)
                try:
                    await ask(worker)
                except (UpstreamUnavailable, StreamBroken) as refusal:
                    reason = refusal.message
                except RemoteError as refusal:
                    raise StreamBroken(f"{error.message}; another one did not go on: {refusal.message}") from error
                else:
                    self._worker = worker
                    self.cluster = worker.cluster
                    self._moved(worker.cluster)
                    _log.info("answer goes on", extra={"request_id": to_hex(self._call.request_id), "model": model})
                    return
            waited = loop.time() - began
            stays = tried == self._lost and self._workers.is_ready(self._worker.lease_id)
            if waited >= wait_s or (stays and waited > self._persistence.settle_s):
                raise StreamBroken(f"{reason}; no other worker of {model} took over within {waited:.0f} s") from error
            if not asked and tried == self._lost:
                asked = True
                self._workers.wake(model, self._call.clusters)
            await asyncio.sleep(self._persistence.poll_s if tried == self._lost else self._persistence.busy_s)

    async def _open(self, call: Call, worker: PooledWorker) -> Answer:
        answer = await self._workers.open_on(call, worker)
        if answer.content_type.startswith(_EVENTS) != self.content_type.startswith(_EVENTS):
            await answer.aclose()
            raise StreamBroken(f"another worker answers with {answer.content_type!r}, not {self.content_type!r}")
        return answer

    async def _prompt_tokens(self, worker: PooledWorker, request: Mapping[str, Any], *, wanted: bool) -> int | None:
        """Have an engine count a prompt; None when it does not."""
        if not wanted:
            return None
        usage = usage_of_body(await self._side(requests.measuring(request), worker, stream=False))
        return usage.prompt_tokens if usage and usage.prompt_tokens else None

    async def _is_echo(self) -> bool:
        """Ask the engine's way once, with a text that no model says by itself; when it does not tell: likely."""
        key = self._key(self._worker)
        if key not in self._workers.echoes:
            stream = await self._side(requests.echo_question(self._call.request), self._worker, stream=True)
            if not stream:
                return True
            self._workers.echoes[key] = requests.is_echo(stream)
        return self._workers.echoes[key]

    async def _side(self, request: Mapping[str, Any], worker: PooledWorker, *, stream: bool) -> bytes:
        """Put a small question beside the answer; empty when it is not answered."""
        call = replace(self._call, request=request, stream=stream)
        body = b""
        try:
            async with asyncio.timeout(self._persistence.side_s):
                answer = await self._workers.open_on(call, worker)
                try:
                    async for batch in answer:
                        body += b"".join(batch)
                        if len(body) > _MAX_SIDE_ANSWER:
                            return b""
                finally:
                    await answer.aclose()
        except (RemoteError, TimeoutError) as error:
            _log.warning("an engine did not tell its tokens: %s", error, extra={"model": self._call.model})
            return b""
        return body

    def _moved(self, cluster: str | None) -> None:
        if self._call.moved is not None:
            self._call.moved(cluster)

    def _key(self, worker: PooledWorker) -> tuple[str, str]:
        return worker.cluster, self._call.model


class _Ask(Protocol):
    async def __call__(self, worker: PooledWorker) -> None: ...
