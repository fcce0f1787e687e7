"""How busy an engine is, by its own `/metrics`: Prometheus text in, two numbers out. Pure.

vLLM and llama.cpp call the same things by other names; an engine that tells neither has no load that we know of.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

_WAITING: Final = frozenset({"vllm:num_requests_waiting", "llamacpp:requests_deferred"})
_CACHE_USE: Final = frozenset(
    {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio"}
)
"""A share, 0 to 1, whatever "perc" says; vLLM renamed its own."""
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)")
_MOST_WAITING: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine says of itself.

    Attributes:
        waiting: requests that it has queued.
        cache_use: share of its key-value cache in use, 0 to 1; None: it does not tell.
    """

    waiting: int = 0
    cache_use: float | None = None


def read_load(text: str) -> Load:
    """Read the metrics of one engine.

    Several samples of one name are its parts (vLLM's data-parallel ranks): their queues add up, and of their caches
    the fullest counts, since it is the one that makes requests wait. What is no finite number is left out.
    """
    waiting, cache_use = 0.0, None
    for line in text.splitlines():
        if (sample := _SAMPLE.match(line)) is None:
            continue
        name, value = sample[1], _number(sample[2])
        if value is None or value < 0:
            continue
        if name in _WAITING:
            waiting += value
        elif name in _CACHE_USE:
            cache_use = max(cache_use or 0.0, min(value, 1.0))
    return Load(int(min(waiting, _MOST_WAITING)), cache_use)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
