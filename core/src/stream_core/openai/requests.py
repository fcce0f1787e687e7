"""OpenAI's requests besides chat, as far as a gateway must look into them. Pure.

Each becomes a `ChatRequest` with another path, so that routing has one kind of request; the body stays as it came.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec

from stream_core.errors import InvalidRequest
from stream_core.openai.demands import Demand
from stream_core.openai.models import ChatRequest, Message, read_object, typed

COMPLETIONS: Final = "/completions"
EMBEDDINGS: Final = "/embeddings"
MODERATIONS: Final = "/moderations"
TOKENIZE: Final = "/tokenize"
"""Paths of an engine's API, without its /v1; engines have the last one outside of /v1."""
OUTSIDE: Final = frozenset({TOKENIZE})

_AUTO: Final = "auto"
_MOST_INPUTS: Final = 2048
_Model = Annotated[str, msgspec.Meta(min_length=1, max_length=300, examples=["auto"])]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class CompletionBody(msgspec.Struct):
    """A request for the continuation of a text."""

    model: _Model
    prompt: str | list[Any]
    """A text, several, or the numbers of tokens."""
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    logit_bias: dict[str, float] | None = None
    echo: bool | None = None
    suffix: str | None = None
    user: str | None = None


class EmbeddingBody(msgspec.Struct):
    """A request for vectors."""

    model: _Model
    input: str | list[Any]
    """A text, several, or the numbers of tokens."""
    encoding_format: str | None = None
    dimensions: _Count | None = None
    user: str | None = None


class ModerationBody(msgspec.Struct):
    """A request for a verdict on texts or images."""

    input: str | list[Any]
    model: _Model = _AUTO


class TokenizeBody(msgspec.Struct):
    """A request for the tokens of a text, or of a conversation."""

    model: _Model
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


_Body = CompletionBody | EmbeddingBody | ModerationBody | TokenizeBody


def parse_completion(data: bytes) -> ChatRequest:
    """Read the body of `POST /v1/completions`; errors as of `models.parse_chat`."""
    body = read_object(data)
    asked = typed(body, CompletionBody)
    if asked.stream_options is not None and not asked.stream:
        raise _wrong("stream_options", "only allowed when 'stream' is true")
    demands = []
    if asked.logprobs is not None:
        demands.append(Demand("logprobs", "logprobs"))
    if asked.suffix:
        demands.append(Demand("suffix", "suffix"))
    if (asked.best_of or 1) > 1:
        demands.append(Demand("best_of", "best_of"))
    texts = _texts(asked.prompt, "prompt", asked.model)
    made = _request(asked, body, COMPLETIONS, texts, demands)
    return replace(made, stream=bool(asked.stream), max_output=asked.max_tokens or None)


def parse_embedding(data: bytes) -> ChatRequest:
    """Read the body of `POST /v1/embeddings`; errors as of `models.parse_chat`."""
    body = read_object(data)
    asked = typed(body, EmbeddingBody)
    if asked.encoding_format not in {None, "float", "base64"}:
        raise _wrong("encoding_format", f"{asked.encoding_format!r:.40} is not one of float, base64")
    if not asked.input:
        raise _wrong("input", "it is empty")
    if isinstance(asked.input, list) and isinstance(asked.input[0], str | list) and len(asked.input) > _MOST_INPUTS:
        raise _wrong("input", f"{len(asked.input):,} inputs, at most {_MOST_INPUTS:,} are allowed")
    demands = [Demand("dimensions", "dimensions")] if asked.dimensions is not None else []
    return _request(asked, body, EMBEDDINGS, _texts(asked.input, "input", asked.model), demands)


def parse_moderation(data: bytes) -> ChatRequest:
    """Read the body of `POST /v1/moderations`; errors as of `models.parse_chat`."""
    body = read_object(data)
    asked = typed(body, ModerationBody)
    if not asked.input:
        raise _wrong("input", "it is empty")
    return _request(asked, body, MODERATIONS, [], [])


def parse_tokenize(data: bytes) -> ChatRequest:
    """Read the body of `POST /v1/tokenize`, which is vLLM's; errors as of `models.parse_chat`.

    Args:
        data: with "prompt" or "messages", not both.
    """
    body = read_object(data)
    asked = typed(body, TokenizeBody)
    if (asked.prompt is None) == (asked.messages is None):
        raise _wrong("prompt", "one of 'prompt' and 'messages' is expected")
    if asked.model == _AUTO:
        raise _wrong("model", "tokens belong to one model: name it")
    if asked.prompt is None:
        return _request(asked, body, TOKENIZE, [], [Demand("tokenize_chat", "messages")])
    made = _request(asked, body, TOKENIZE, [], [Demand("tokenize", "prompt")])
    return replace(made, body={**body, "content": asked.prompt})  # as llama.cpp calls it


def _request(asked: _Body, body: Mapping[str, Any], path: str, texts: list[str], demands: list[Demand]) -> ChatRequest:
    return ChatRequest(
        body=body,
        model=asked.model,
        stream=False,
        messages=tuple(Message(role="user", content=text) for text in texts),
        modalities=frozenset({"text"}),
        media_bytes=0,
        media_parts=0,
        tool_count=0,
        structured=False,
        max_output=None,
        demands=tuple(demands),
        path=path,
        unknown=len(body.keys() - set(type(asked).__struct_fields__)),
    )


def _texts(value: str | list[Any], param: str, model: str) -> list[str]:
    """Give the texts of a prompt or input; numbers of tokens have none.

    Raises:
        InvalidRequest: neither texts nor tokens, or tokens of no model in particular.
    """
    if isinstance(value, str):
        return [value]
    if all(isinstance(item, str) for item in value):
        return value
    if not (all(map(_is_token, value)) or all(isinstance(item, list) and all(map(_is_token, item)) for item in value)):
        raise _wrong(param, "a string, a list of strings, or the numbers of tokens are expected")
    if model == _AUTO:
        raise _wrong(param, "the numbers of tokens belong to one model: name it")
    return []


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def schemas(ref_template: str = "#/components/schemas/{name}") -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe these bodies, as JSON Schema components by name."""
    bodies = [CompletionBody, EmbeddingBody, ModerationBody, TokenizeBody]
    yield from msgspec.json.schema_components(bodies, ref_template=ref_template)[1].items()


def _wrong(param: str, words: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {words}", param=param)
