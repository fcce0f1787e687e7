"""`stream top`: what goes on right now, from the services' own numbers."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from stream_cli import exposition, leftovers
from stream_cli.doctor import metrics_port
from stream_cli.exposition import Reading
from stream_cli.home import Home
from stream_cli.plan import SERVICES
from stream_core.errors import ConfigError

_TIMEOUT_S: Final = 2.0
_MOST: Final = 8 * 1024 * 1024
_GOOD: Final = frozenset({"complete", "client_gone"})


@dataclass(frozen=True)
class TierNow:
    """One tier."""

    name: str
    up: bool
    requests: float
    """A second; with a single reading: since the gateways started, all."""
    failed: float
    tokens: float
    """Of answers, likewise."""
    first_token_p50_s: float | None
    first_token_p99_s: float | None


@dataclass(frozen=True)
class PoolNow:
    """One model on one cluster."""

    cluster: str
    model: str
    pilots: dict[str, int]
    running: int
    waiting: int


@dataclass(frozen=True)
class Now:
    """What goes on."""

    streams: int
    waiting: int
    relays: int
    """Workers that relays have."""
    tiers: list[TierNow] = field(default_factory=list)
    pools: list[PoolNow] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    """Programs that tell nothing."""

    def as_json(self) -> dict[str, Any]:
        """Write it for machines."""
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """One look at all programs."""

    at: float
    reading: Reading
    away: list[str]


def places(home: Home, given: Iterable[str]) -> dict[str, str]:
    """Find where the numbers are: base URLs by name.

    Args:
        home: of a running `stream up`.
        given: base URLs that the caller names; then only these.

    Raises:
        ConfigError: nothing runs there.
    """
    if named := list(given):
        return {url: url.rstrip("/") for url in named}
    record = leftovers.read(home)
    if record is None or not record.alive:
        raise ConfigError(
            f"nothing runs under {home.root}: start `stream up`, or name services with --at", param="--at"
        )
    ports = {name: metrics_port(home, name) for name in SERVICES if name in record.programs}
    return {name: f"http://127.0.0.1:{port}" for name, port in ports.items() if port}


def look(where: dict[str, str]) -> Look:
    """Read all programs' numbers, at once."""
    with ThreadPoolExecutor(max_workers=len(where) or 1) as pool:
        texts = dict(zip(where, pool.map(_fetch, where.values()), strict=True))
    samples = [sample for text in texts.values() if text is not None for sample in exposition.read(text)]
    return Look(time.monotonic(), Reading(samples), [name for name, text in texts.items() if text is None])


def _fetch(base: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{base}/metrics", timeout=_TIMEOUT_S) as answer:  # noqa: S310  (the caller's own)
            data: bytes = answer.read(_MOST)
            return data.decode("utf-8", "replace")
    except (urllib.error.URLError, OSError, ValueError):
        return None


def between(now: Look, before: Look | None) -> Now:
    """Sum up what happened between two looks. Pure.

    Args:
        now: the newer one.
        before: None: everything since the programs' start, as plain numbers instead of a second's.
    """
    reading, earlier = now.reading, before.reading if before else Reading()
    span = now.at - before.at if before else 1.0

    def rate(name: str, **labels: str) -> float:
        return max(0.0, reading.sum(name, **labels) - earlier.sum(name, **labels)) / span

    def tier(name: str) -> TierNow:
        spread = reading.buckets("stream_first_token_seconds", tier=name)
        was = earlier.buckets("stream_first_token_seconds", tier=name)
        ends = {sample.label("ended") for sample in reading.samples("stream_requests_total", tier=name)}
        return TierNow(
            name=name,
            up=any(sample.value for sample in reading.samples("stream_tier_up", tier=name)),
            requests=rate("stream_requests_total", tier=name),
            failed=sum(rate("stream_requests_total", tier=name, ended=ended) for ended in ends - _GOOD),
            tokens=rate("stream_tokens_total", tier=name, kind="completion"),
            first_token_p50_s=exposition.quantile(0.5, spread, was),
            first_token_p99_s=exposition.quantile(0.99, spread, was),
        )

    pools = sorted({(s.label("cluster"), s.label("model")) for s in reading.samples("stream_pilots")})
    return Now(
        streams=int(reading.sum("stream_gateway_open_streams")),
        waiting=int(reading.sum("stream_gateway_waiting_requests")),
        relays=int(reading.sum("stream_relay_connections")),
        tiers=[tier(name) for name in reading.values("stream_tier_up", "tier")],
        pools=[_pool(reading, cluster, model) for cluster, model in pools],
        away=now.away,
    )


def _pool(reading: Reading, cluster: str, model: str) -> PoolNow:
    place = {"cluster": cluster, "model": model}
    return PoolNow(
        cluster=cluster,
        model=model,
        pilots={s.label("state"): int(s.value) for s in reading.samples("stream_pilots", **place) if s.value},
        running=int(reading.sum("stream_pool_running_requests", **place)),
        waiting=int(
            reading.sum("stream_pool_queued_requests", **place) + reading.sum("stream_pool_waiting_requests", **place)
        ),
    )
