"""An engine's chat answer as translations read it: typed, whichever dialect of OpenAI's the engine speaks. Pure."""

from typing import Any, Final

import msgspec

from stream_core.errors import RemoteError, StreamBroken
from stream_core.openai.sse import data_of

_DONE: Final = b"[DONE]"
_LONGEST_WORDS: Final = 500


class Function(msgspec.Struct):
    """Name and arguments of a call, or a piece of them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A call of a tool, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """A message, or a piece of one."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def thought(self) -> str:
        """What the model said to itself: engines have two names for it."""
        return self.reasoning_content or self.reasoning or ""


class Choice(msgspec.Struct):
    """An answer, or a piece of one."""

    index: int = 0
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """vLLM: the stop sequence that was met."""
    logprobs: dict[str, Any] | None = None


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Of the answer's tokens."""

    reasoning_tokens: int | None = None


class Count(msgspec.Struct):
    """Tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were known already."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0

    @property
    def reasoned(self) -> int:
        """Tokens of the answer that the model said to itself."""
        return (self.completion_tokens_details and self.completion_tokens_details.reasoning_tokens) or 0


class Chunk(msgspec.Struct):
    """An event of a stream, or a whole answer."""

    model: str = ""
    choices: list[Choice] = []
    usage: Count | None = None
    error: Any = None


_DECODER: Final = msgspec.json.Decoder(Chunk)


def read_event(event: bytes) -> Chunk | None:
    """Read an event; None when it carries nothing: a comment, "[DONE]".

    Raises:
        StreamBroken: the engine reports a failure, or says what is no chunk.
    """
    data = data_of(event)
    if data is None or data == _DONE:
        return None
    try:
        chunk = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StreamBroken("the engine sent an event that is no chat chunk") from error
    if chunk.error is not None:
        raise StreamBroken(f"the engine failed in the middle of its answer: {_words(chunk.error)}")
    return chunk


def read_whole(body: bytes) -> tuple[Chunk, Choice, Said]:
    """Read an answer that is not streamed: all of it, its first choice, and what that says.

    Raises:
        RemoteError: it is no chat answer.
    """
    try:
        answer = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteError("the engine's answer is no chat completion") from error
    if answer.error is not None:
        raise RemoteError(f"the engine failed: {_words(answer.error)}")
    if not answer.choices or answer.choices[0].message is None:
        raise RemoteError("the engine's answer has no choice")
    return answer, answer.choices[0], answer.choices[0].message


def _words(error: object) -> str:
    said = error.get("message", error) if isinstance(error, dict) else error
    return str(said)[:_LONGEST_WORDS]
