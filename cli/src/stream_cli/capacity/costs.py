"""Measured costs: what a token, a request and an open stream cost each part. Pure.

`make bench-capacity` writes them as its last line; the package carries one such measurement, so that the command works
without. Figures of other benches, the judge's and the summarizer's, may replace theirs.
"""

from importlib import resources
from typing import Final

import msgspec

from stream_core.errors import ConfigError

PARTS: Final = ("gateway", "relay", "nats", "worker")


class PartCost(msgspec.Struct, frozen=True):
    """Of one part, on one core of the machine that measured."""

    us_per_request: float
    """CPU microseconds for a short request, its few events included."""
    us_per_wakeup: float
    """For all that has come since the last one; see `queueing`."""
    us_per_token: float
    """And for each token of it."""
    idle_cores: float
    base_mib: float
    """Resident memory without a stream."""
    kib_per_stream: float


class PoolCost(msgspec.Struct, frozen=True):
    """What telling the pool costs hpc_dispatch's leader and each gateway."""

    draw_us_per_worker: float
    compare_us_per_worker: float
    serialize_us_per_change: float
    take_us_per_change: float
    bytes_per_worker: float
    bytes_per_change: float


class Costs(msgspec.Struct, frozen=True):
    """All of it."""

    machine: str
    """Where it was measured."""
    parts: dict[str, PartCost]
    pool: PoolCost
    event_bytes: float
    """A token's event as the client gets it."""
    sealed_bytes: float
    """The same, alone in its frame."""
    judge_calls_per_core_s: float = 1000.0
    summarizer_ms: float = 15.0
    """Of a core, for a conversation that is condensed."""


def load(texts: list[tuple[str, str]] | None = None) -> Costs:
    """Read costs.

    Args:
        texts: (where it is from, a bench's output: its last line counts); a later one goes before an earlier one.
            None: those that the package carries.

    Raises:
        ConfigError: not such output, with its field.
    """
    text = resources.files(__package__).joinpath("costs.json").read_text(encoding="utf-8")
    told = _last_line("costs.json", text)
    for source, output in texts or []:
        told |= _known(source, _last_line(source, output))
    try:
        costs = msgspec.convert(told, Costs)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error), param="costs") from error
    if missing := [part for part in PARTS if part not in costs.parts]:
        raise ConfigError(f"parts: {', '.join(missing)} missing", param="costs")
    return costs


def _last_line(source: str, text: str) -> dict[str, object]:
    lines = text.strip().splitlines() or [""]
    try:
        return msgspec.json.decode(text if text.lstrip().startswith("{") else lines[-1], type=dict)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{source}: its last line is no JSON object: {error}", param="costs") from error


def _known(source: str, told: dict[str, object]) -> dict[str, object]:
    """Take from a bench's figures what is a cost."""
    try:
        if "parts" in told:
            return told
        if "uncached" in told:
            rate = msgspec.convert(told["uncached"], dict[str, float])["calls_per_core_s"]
            return {"judge_calls_per_core_s": rate}
        if "next_turn_p50_ms" in told:
            return {"summarizer_ms": told["next_turn_p50_ms"]}
    except (msgspec.ValidationError, KeyError) as error:
        raise ConfigError(f"{source}: {error}", param="costs") from error
    words = "neither of bench-capacity, bench-judge-rpc nor bench-summarizer"
    raise ConfigError(f"{source}: {words}", param="costs")
