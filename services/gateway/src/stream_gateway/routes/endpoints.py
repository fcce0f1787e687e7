"""The endpoints that ask a model: which path speaks which dialect, and what the OpenAPI document says of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stream_core.openai.models import chat_schema
from stream_core.openai.requests import parse_completion, parse_embedding, parse_moderation, parse_tokenize, schemas
from stream_gateway.backends.registry import Registry
from stream_gateway.batches.service import Batches
from stream_gateway.dialects import messages_request, responses_request
from stream_gateway.dialects.contract import Dialect
from stream_gateway.dialects.messages import MessagesDialect
from stream_gateway.dialects.plain import PlainDialect
from stream_gateway.dialects.responses import ResponsesDialect
from stream_gateway.dialects.tokens import TokenCount

CHAT: Final = "/v1/chat/completions"
_HEADERS: Final = {
    "x-stream-tier": "The tier that answers; left out while a stream waits and another one may still answer",
    "x-stream-model": "Its model, likewise",
    "x-stream-cluster": "Whose worker answers; left out on a tier without clusters, and while a stream waits",
    "x-stream-context": "How many tokens became how many and which messages were condensed; absent when none was",
    "x-stream-reason": "Why, and what else befell the request",
    "x-request-id": "Of this request",
}
_ERRORS: Final = {
    400: "The request is malformed, or asks for what no model here can do; `param` names the field",
    401: "No valid API key",
    403: "The key, or the request's privacy class, does not allow it",
    404: "No such model",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "A limit was reached",
    500: "An error of the gateway itself",
    502: "The engine failed in the middle of an answer",
    503: "No model can answer now; `retry-after` says when to come back",
    504: "The engine gave no sign of life",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of them."""

    dialect: Dialect
    tag: str
    operation: str
    summary: str
    body: str
    """Name of its schema."""
    streams: bool = True
    error: str = "Error"
    """Name of its errors' schema."""
    unlisted: str = ""
    """Why there is no list of its answers; empty where its API knows no such list."""


def endpoints(batches: Batches, registry: Registry) -> dict[str, Endpoint]:
    """List all endpoints by path.

    Args:
        batches: with the store of responses.
        registry: the tiers, with the policy.
    """
    return {
        CHAT: Endpoint(
            PlainDialect(),
            "chat",
            "chat_completions",
            "Answer a conversation",
            "ChatBody",
            unlisted="chat completions are not kept here; what is kept are responses: POST /v1/responses",
        ),
        "/v1/completions": Endpoint(
            PlainDialect(parse_completion), "chat", "completions", "Continue a text", "CompletionBody"
        ),
        "/v1/embeddings": Endpoint(
            PlainDialect(parse_embedding),
            "vectors",
            "embeddings",
            "Turn texts into vectors",
            "EmbeddingBody",
            streams=False,
        ),
        "/v1/moderations": Endpoint(
            PlainDialect(parse_moderation),
            "chat",
            "moderations",
            "Judge texts, where a tier offers it",
            "ModerationBody",
            streams=False,
        ),
        "/v1/tokenize": Endpoint(
            PlainDialect(parse_tokenize, TokenCount),
            "chat",
            "tokenize",
            "Count the tokens of a text, where the model's engine offers it",
            "TokenizeBody",
            streams=False,
        ),
        "/v1/messages": Endpoint(
            MessagesDialect(),
            "messages",
            "create_message",
            "Answer a conversation, in Anthropic's form",
            "MessagesBody",
            error="MessagesError",
        ),
        "/v1/responses": Endpoint(
            ResponsesDialect(batches, registry),
            "responses",
            "create_response",
            "Answer a conversation that may be kept here and gone on from",
            "ResponseBody",
        ),
    }


def openapi_paths(listed: Mapping[str, Endpoint]) -> dict[str, Any]:
    """Describe the endpoints for the OpenAPI document."""
    return {
        path: {"post": _operation(endpoint)} | ({"get": _unlisted(endpoint)} if endpoint.unlisted else {})
        for path, endpoint in listed.items()
    }


def openapi_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the schemas that `openapi_paths` refers to, by name."""
    yield from chat_schema().items()
    yield from schemas()
    yield from messages_request.schemas().items()
    yield from responses_request.schemas().items()


def _unlisted(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "tags": [endpoint.tag],
        "summary": f"Not possible: {endpoint.unlisted}",
        "operationId": f"list_{endpoint.operation}",
        "responses": {"404": {"description": "Always", **_error(endpoint)}},
    }


def _error(endpoint: Endpoint) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{endpoint.error}"}}}}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    error = _error(endpoint)
    kinds: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    words = "The engine's answer"
    if endpoint.streams:
        kinds["text/event-stream"] = {"schema": {"type": "string"}}
        words += (
            ". A stream that waits for a worker begins with SSE comments; if none becomes ready within the limit, "
            "it ends with an error event, code `worker_not_ready`."
        )
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()}
    return {
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "operationId": endpoint.operation,
        "security": [{"HTTPBearer": []}, {"APIKeyHeader": []}] if endpoint.tag == "messages" else [{"HTTPBearer": []}],
        "parameters": [
            {
                "name": "x-stream-privacy",
                "in": "header",
                "required": False,
                "description": "Privacy class of this request; it can only raise the key's own.",
                "schema": {"type": "string"},
            },
            {
                "name": "x-stream-context",
                "in": "header",
                "required": False,
                "description": "`full` forbids condensing: only models whose window holds the whole conversation "
                "are asked, else 400 `context_length_exceeded`. `auto`, the default, condenses where it must.",
                "schema": {"type": "string", "enum": ["auto", "full"]},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{endpoint.body}"}}},
        },
        "responses": {
            "200": {"description": words, "headers": headers, "content": kinds},
            **{str(code): {"description": text, **error} for code, text in _ERRORS.items()},
        },
    }
