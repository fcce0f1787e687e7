"""OpenAI's Responses API: on the way of every chat request, with what was said before, kept for what comes after."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from stream_core.errors import InvalidRequest, Unsupported
from stream_core.ids import to_hex
from stream_core.openai.models import chat_of
from stream_core.privacy import strictest
from stream_gateway.accounts.principal import Principal
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.faults import NotConfigured
from stream_gateway.batches.service import SETTING, Batches
from stream_gateway.dialects.contract import OpenAiDialect, Spoken
from stream_gateway.dialects.responses_answer import ResponsesAnswer
from stream_gateway.dialects.responses_items import messages_of
from stream_gateway.dialects.responses_request import Wanted, chat_body, parse_response
from stream_gateway.responses.ids import NoSuchResponse, new_response_id
from stream_gateway.routing import request_class

if TYPE_CHECKING:
    from stream_gateway.responses.archive import Archive, Conversation


class PreviousNotFound(InvalidRequest):
    """The response that is to be gone on from is not there, or another's."""

    code = "previous_response_not_found"


class ResponsesDialect(OpenAiDialect):
    """See `Dialect`.

    Args:
        batches: with the store.
        registry: with the policy.
        clock: gives unix seconds.
    """

    def __init__(self, batches: Batches, registry: Registry, clock: Callable[[], float] = time.time) -> None:
        self._batches = batches
        self._registry = registry
        self._clock = clock

    async def read(self, body: bytes, principal: Principal, privacy: str | None, request_id: bytes) -> Spoken:
        """Translate the request, with the conversation that it goes on from."""
        wanted = parse_response(body)
        await self._batches.tried()
        archive = self._archive(wanted)
        policy = self._registry.current.deployment.policy
        class_ = request_class(policy, principal.privacy, privacy)
        before: list[dict[str, Any]] = []
        if (previous := wanted.body.previous_response_id) is not None:
            earlier = await self._earlier(principal, previous)
            before = earlier.items
            class_ = strictest(policy.classes, class_, earlier.privacy)
        items = [_named(item, request_id, index) for index, item in enumerate(wanted.items)]
        chat = chat_of(chat_body(wanted, [*messages_of(before, "previous_response_id"), *messages_of(items)]))
        now = self._clock()
        id_ = new_response_id(now, to_hex(request_id))
        answer = ResponsesAnswer(_frame(wanted, id_, int(now), stored=archive is not None))
        if archive is None:
            return Spoken(chat, answer, class_)
        archive.check_size(len(body) + (len(orjson.dumps(before)) if before else 0))

        async def keep(privacy: str) -> None:
            await archive.keep(principal.id, _conversation(answer.response, items, before, privacy))

        return Spoken(chat, answer, class_, keep)

    def _archive(self, wanted: Wanted) -> "Archive | None":
        """Give where the response is to be kept; None: nowhere, which the response says.

        Raises:
            Unsupported: the client insists, and this deployment keeps none.
            StoreAway: not now; a response that is silently not there later would be worse.
        """
        if wanted.body.store is False:
            return None
        try:
            return self._batches.archive
        except NotConfigured as error:
            if wanted.body.store:
                words = f"store: this gateway keeps no responses: {SETTING} is not set"
                raise Unsupported(words, param="store") from error
            return None

    async def _earlier(self, principal: Principal, id_: str) -> "Conversation":
        param = "previous_response_id"
        try:
            return await self._batches.archive.find(principal.id, id_)
        except NotConfigured as error:
            words = f"{param}: this gateway keeps no responses: {SETTING} is not set"
            raise Unsupported(words, param=param) from error
        except NoSuchResponse as error:
            raise PreviousNotFound(f"{param}: {error.message}", param=param) from error


def _conversation(
    response: dict[str, Any], items: list[dict[str, Any]], before: list[dict[str, Any]], class_: str
) -> "Conversation":
    from stream_gateway.responses.archive import Conversation  # noqa: PLC0415  (with the broker's client, loaded aside)

    return Conversation(response, items, before, class_)


def _named(item: dict[str, Any], request_id: bytes, index: int) -> dict[str, Any]:
    """Give an input item an id, under which it is listed."""
    kind = item.get("type", "message")
    own = item.get("id")
    made = f"{str(kind)[:3]}_{to_hex(request_id)}{index:02x}"
    return {"type": kind, **item, "id": own if isinstance(own, str) and own else made}


def _frame(wanted: Wanted, id_: str, now: int, *, stored: bool) -> dict[str, Any]:
    """Give the response object before there is an answer."""
    asked = wanted.body
    text: dict[str, Any] = {"format": (asked.text and asked.text.format) or {"type": "text"}}
    if asked.text and asked.text.verbosity:
        text["verbosity"] = asked.text.verbosity
    return {
        "id": id_,
        "object": "response",
        "created_at": now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {
            "effort": asked.reasoning.effort if asked.reasoning else None,
            "summary": asked.reasoning.summary if asked.reasoning else None,
        },
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": asked.temperature,
        "text": text,
        "tool_choice": asked.tool_choice or "auto",
        "tools": [{"strict": None, "description": None, "parameters": None, **tool} for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }
