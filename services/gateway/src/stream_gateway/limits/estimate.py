"""What a request may use at most, and what it did use, in tokens, dollars and GPU time. Pure.

| known of the answer            | charged                                                                |
|--------------------------------|------------------------------------------------------------------------|
| the engine told its usage      | its tokens, at the model's price                                       |
| a stream without usage         | the prompt as reserved, the answer by its events, or by their bytes    |
| (cut, or never told)           | where these are many, up to what was reserved                          |
| neither                        | what was reserved                                                      |
| it never began                 | nothing                                                                |

GPU time is that of the request's share: the seconds from its being sent to an engine until its end, times
`GpuShare.gpus` of the engine, divided by `GpuShare.shared_by` requests that it is reckoned to serve at once. An answer
that goes on elsewhere after its worker's death is charged each engine's seconds at that one's share, and its tokens
once. Before, it is reserved for an answer of the greatest length at `SLOWEST` tokens a second.
"""

import math
from dataclasses import dataclass
from typing import Final

from stream_core.cluster_config import Price
from stream_core.openai.chunks import Usage
from stream_core.openai.models import ChatRequest
from stream_core.openai.requests import COMPLETIONS, EMBEDDINGS, MODERATIONS, TOKENIZE
from stream_gateway.limits.account import NANO, Amounts

BYTES_PER_TOKEN: Final = 3.0
"""Of a request's body: fewer than any text has, JSON around it included."""
SLOWEST: Final = 20.0
"""Tokens a second of an answer, for what is reserved of a GPU."""
_MEDIA_TOKENS: Final = 2_048
"""Of an image or audio clip, whose bytes tell nothing."""
_BYTES_AROUND: Final = 512
"""Of an event: no more is around its text. An event with more than that has several tokens."""
_BYTES_PER_SENT_TOKEN: Final = 3
_MILLION: Final = 1_000_000
_SILENT: Final = frozenset({EMBEDDINGS, MODERATIONS, TOKENIZE})
"""Paths whose answers have no tokens."""


@dataclass(frozen=True, slots=True)
class GpuShare:
    """What of an engine's GPUs one request is charged."""

    gpus: float
    shared_by: float = 1.0

    def ms(self, seconds: float) -> int:
        """Charge so many seconds."""
        return math.ceil(seconds * 1000 * self.gpus / self.shared_by)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs besides tokens; nothing where it is None."""

    price: Price | None = None
    gpu: GpuShare | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """A request's tokens, at most."""

    prompt: int
    output: int


def dollars(price: Price, prompt_tokens: float, completion_tokens: float) -> float:
    """What so many tokens cost."""
    return (price.input * prompt_tokens + price.output * completion_tokens) / _MILLION


def prompt_tokens(body_bytes: int, media_bytes: int = 0, media_parts: int = 0) -> float:
    """Tokens of a prompt, no fewer than there are.

    Args:
        body_bytes: of the request.
        media_bytes: of these, images and audio.
        media_parts: how many.
    """
    return max(0, body_bytes - media_bytes) / BYTES_PER_TOKEN + media_parts * _MEDIA_TOKENS


def size_of(chat: ChatRequest, body_bytes: int, reserved_output: int) -> Size:
    """Bound a request's tokens.

    Args:
        chat: the request.
        body_bytes: length of its JSON.
        reserved_output: tokens of the longest answer, where the caller sets no limit.
    """
    if chat.path == TOKENIZE:
        return Size(0, 0)
    prompt = math.ceil(prompt_tokens(body_bytes, chat.media_bytes, chat.media_parts))
    if chat.path in _SILENT:
        return Size(prompt, 0)
    return Size(prompt, answers(chat) * (chat.max_output or reserved_output))


def answers(chat: ChatRequest) -> int:
    """How many answers a request asks for."""
    each = chat.body.get("best_of") or chat.body.get("n") or 1
    return int(each) * (max(1, len(chat.messages)) if chat.path == COMPLETIONS else 1)


def reserve(size: Size, rates: Rates) -> Amounts:
    """Tell what a request may use at most."""
    cost = dollars(rates.price, size.prompt, size.output) if rates.price else 0.0
    gpu_ms = rates.gpu.ms(max(1, size.output) / SLOWEST) if rates.gpu else 0
    return Amounts(size.prompt + size.output, math.ceil(cost * NANO), gpu_ms)


def counted(size: Size, usage: Usage | None, events: int, bytes_out: int) -> Usage:
    """Tell the tokens that an answer is charged that has begun.

    Args:
        size: as reserved.
        usage: as the engine told it.
        events: of its stream; 0: it was none.
        bytes_out: that were sent.
    """
    if usage is not None:
        return usage
    if events:
        text = (bytes_out - events * _BYTES_AROUND) // _BYTES_PER_SENT_TOKEN
        return Usage(size.prompt, max(events, min(size.output, text)))
    return Usage(size.prompt, size.output)


def used(counted: Usage, gpu_ms: int, rates: Rates) -> Amounts:
    """Tell what an answer has used.

    Args:
        counted: its tokens.
        gpu_ms: GPU time of all engines that had it.
        rates: of the model that gave it.
    """
    cost = dollars(rates.price, counted.prompt_tokens, counted.completion_tokens) if rates.price else 0.0
    return Amounts(counted.prompt_tokens + counted.completion_tokens, math.ceil(cost * NANO), gpu_ms)
