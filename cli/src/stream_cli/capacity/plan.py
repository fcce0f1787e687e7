"""A load in, replicas, cores, memory and bandwidth out; what gives way first is named. Pure.

Every part but two grows by replicas, each a process of one core: gateway and relay by tokens, judge and summarizer by
requests. The two: NATS, whose nodes see each other's traffic, and hpc_dispatch's leader, which alone tells the pool to
all gateways.
"""

import math
from dataclasses import dataclass
from typing import Final

from stream_cli.capacity.costs import Costs, PartCost
from stream_cli.capacity.queueing import busy
from stream_core.errors import ConfigError

_GBIT: Final = 8 / 1e9
_KIB_IN_GIB: Final = 2**20
_STATUS_EVERY_S: Final = 2.0
"""`status_interval_s` of a worker."""
_PUBLISH_EVERY_S: Final = 0.1
"""`publish_interval_s` of hpc_dispatch."""
_GRPC_US: Final = 71.0
"""For one message of a gRPC stream, both ends, measured when the libraries were chosen."""
_LARGEST_CLUSTER: Final = 7
"""NATS nodes that are all joined to each other; more are several clusters joined by gateways."""
_MOST_REPLICAS: Final = 1_000_000
_JUDGE_MIB, _SUMMARIZER_MIB, _DISPATCH_MIB = 160.0, 200.0, 110.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried."""

    streams: int
    """Open at once, all on clusters."""
    tokens_per_s: float
    """Of one stream."""
    clusters: int = 1
    answer_tokens: float = 400.0
    judged: float = 1.0
    """Share of requests that ask for `auto`."""
    condensed: float = 0.05
    """Share of requests whose conversation is condensed."""
    streams_per_worker: int = 64
    together: float = 1.0
    """Tokens of one worker for one gateway that come at the same time; 1 is the dear case."""

    @property
    def tokens(self) -> float:
        """A second, of all streams."""
        return self.streams * self.tokens_per_s

    @property
    def requests(self) -> float:
        """A second."""
        return self.tokens / self.answer_tokens


@dataclass(frozen=True, slots=True)
class Hardware:
    """What it runs on."""

    use: float = 0.6
    """Share of a core that may be busy, so that first tokens don't queue."""
    spare: int = 1
    """Replicas more than needed, for updates and failures."""
    nats_cores: int = 8
    nic_gbit: float = 10.0


@dataclass(frozen=True, slots=True)
class Need:
    """What one part needs, of all its replicas."""

    part: str
    replicas: int
    cores: float
    """Busy."""
    memory_gib: float
    gbit: float
    """In and out."""
    headroom: float
    """How many times this load it could carry with more replicas; inf: no end is known."""
    basis: str
    """The figures behind it."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The plan."""

    load: Load
    needs: list[Need]
    layout: str
    """Of NATS."""
    bottleneck: str
    assumptions: list[str]


def plan(load: Load, hardware: Hardware, costs: Costs) -> Capacity:
    """Size every part.

    Raises:
        ConfigError: a number that can't be, with its option.
    """
    _check(load, hardware)
    workers = math.ceil(load.streams / load.streams_per_worker)
    event, sealed = load.tokens * costs.event_bytes * _GBIT, load.tokens * costs.sealed_bytes * _GBIT
    gateway = _replicated("gateway", costs.parts["gateway"], load, hardware, sealed + event)
    relay = _replicated("relay", costs.parts["relay"], load, hardware, 2 * sealed)
    nats = _nats(costs.parts["nats"], relay.replicas, load, hardware, sealed)
    judge_us = 1e6 / costs.judge_calls_per_core_s
    needs = [
        gateway,
        _by_calls("judge", load.requests * load.judged, judge_us, _JUDGE_MIB, hardware),
        _by_calls("summarizer", load.requests * load.condensed, costs.summarizer_ms * 1e3, _SUMMARIZER_MIB, hardware),
        _dispatch(costs, workers, gateway.replicas, hardware),
        relay,
        nats,
        _workers(costs.parts["worker"], workers, load, sealed),
    ]
    first = min(needs, key=lambda need: need.headroom)
    dearest = max((need for need in needs if need.part != "worker"), key=lambda need: need.cores)
    bottleneck = (
        f"{first.part}: its end is at about {first.headroom:.1f} times this load ({first.basis}); "
        f"most cores go to {dearest.part} ({dearest.cores:,.1f}), which grows by replicas"
    )
    return Capacity(load, needs, _layout(nats.replicas, load.clusters), bottleneck, _assumptions(load, hardware, costs))


def _busy(cost: PartCost, share: float, load: Load) -> float:
    """How busy one replica is that has this share of the load."""
    messages = load.tokens / load.together * share
    tokens = busy(messages, load.together, cost.us_per_wakeup, cost.us_per_token)
    return tokens + load.requests * share * cost.us_per_request / 1e6 + cost.idle_cores


def _replicated(name: str, cost: PartCost, load: Load, hardware: Hardware, gbit: float) -> Need:
    low, high = 1, _MOST_REPLICAS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _busy(cost, 1 / middle, load) <= hardware.use else (middle + 1, high)
    by_network = math.ceil(gbit / (hardware.nic_gbit * hardware.use))
    replicas = max(2, low, by_network) + hardware.spare
    memory = replicas * cost.base_mib / 1024 + load.streams * cost.kib_per_stream / _KIB_IN_GIB
    words = (
        f"{cost.us_per_wakeup:g} us a wake-up, {cost.us_per_token:g} a token, {cost.us_per_request:g} a request; "
        f"{load.streams / replicas:,.0f} streams each"
    )
    return Need(name, replicas, replicas * _busy(cost, 1 / replicas, load), memory, gbit, math.inf, words)


def _by_calls(name: str, calls: float, us: float, mib: float, hardware: Hardware) -> Need:
    cores = calls * us / 1e6
    replicas = max(2, math.ceil(cores / hardware.use) + hardware.spare)
    return Need(
        name, replicas, cores, replicas * mib / 1024, 0.0, math.inf, f"{us:,.0f} us a call, {calls:,.1f} calls/s"
    )


def _dispatch(costs: Costs, workers: int, gateways: int, hardware: Hardware) -> Need:
    """Size the leader: it draws the pool for every publication and tells each gateway what changed."""
    pool = costs.pool
    publications = min(1 / _PUBLISH_EVERY_S, workers / _STATUS_EVERY_S)
    changed = workers / _STATUS_EVERY_S / publications
    drawn = workers * (pool.draw_us_per_worker + pool.compare_us_per_worker)
    told = gateways * (_GRPC_US + changed * pool.serialize_us_per_change)
    cores = publications * (drawn + told) / 1e6
    gbit = publications * gateways * changed * pool.bytes_per_change * _GBIT
    words = f"{workers:,} workers, {gateways:,} gateways told {publications:.1f} times a second by one leader"
    return Need("hpc_dispatch", 2, cores, 2 * _DISPATCH_MIB / 1024, gbit, hardware.use / max(cores, 1e-6), words)


def _nats(cost: PartCost, relays: int, load: Load, hardware: Hardware, sealed: float) -> Need:
    """Size the broker: a message comes in at one node and goes on to another one as often as there are others."""
    once = relays * _busy(cost, 1 / relays, load)  # each connection of a relay is read by a thread of its own
    per_node, network = hardware.nats_cores * hardware.use, hardware.nic_gbit * hardware.use

    def share(nodes: int) -> float:
        """Of what a node can do; the same on each."""
        crossing = 1 + (nodes - 1) / nodes
        return max(once * crossing / per_node, 2 * sealed * crossing / network) / nodes

    nodes = next((nodes for nodes in range(3, 100_000) if share(nodes) <= 1), 100_000)
    crossing = 1 + (nodes - 1) / nodes
    largest = _LARGEST_CLUSTER * load.clusters
    words = f"{once:,.1f} cores of messages, {2 * sealed:,.1f} Gbit/s; up to {largest} nodes"
    return Need(
        "nats",
        nodes,
        once * crossing,
        nodes * cost.base_mib / 1024 + load.streams * cost.kib_per_stream / _KIB_IN_GIB,
        2 * sealed * crossing,
        1 / share(max(largest, nodes)),
        words,
    )


def _layout(nodes: int, clusters: int) -> str:
    leaf = "relays outside connect to a leaf node"
    if nodes <= _LARGEST_CLUSTER:
        return f"one NATS cluster of {nodes} nodes, JetStream with 3 copies; {leaf}"
    parts = max(clusters, math.ceil(nodes / _LARGEST_CLUSTER))
    return (
        f"a super-cluster: {parts} NATS clusters of {max(3, math.ceil(nodes / parts))} nodes, joined by gateways, one "
        "beside the relays of each HPC cluster, so that only what a STREAM gateway elsewhere waits for crosses; "
        f"JetStream in one of them; {leaf}"
    )


def _workers(cost: PartCost, workers: int, load: Load, sealed: float) -> Need:
    each = _busy(cost, 1 / workers, load)
    memory = workers * cost.base_mib / 1024 + load.streams * cost.kib_per_stream / _KIB_IN_GIB
    words = f"{load.streams_per_worker} streams and {each:.2f} cores each, beside its engine"
    return Need("worker", workers, workers * each, memory, sealed, math.inf, words)


def _assumptions(load: Load, hardware: Hardware, costs: Costs) -> list[str]:
    return [
        f"costs are of {costs.machine}; other cores are quicker",
        f"tokens come at random, {load.together:g} of one worker for one gateway at the same time",
        "an engine that steps all its streams together makes that more, and cheaper",
        f"an answer has {load.answer_tokens:g} tokens; all go to clusters",
        f"{load.judged:.0%} of requests are judged, {load.condensed:.0%} condensed",
        f"a core is busy to {hardware.use:.0%}, a network card of {hardware.nic_gbit:g} Gbit/s likewise",
        f"a NATS node has {hardware.nats_cores} cores; {hardware.spare} replica(s) spare",
        "TLS of clients ends before the gateway and is not counted",
        "extrapolated, not measured: several machines; routes between NATS nodes, each counted as much as coming in",
    ]


def _check(load: Load, hardware: Hardware) -> None:
    for name, value, least, most in (
        ("streams", load.streams, 1, 10**8),
        ("tokens-per-s", load.tokens_per_s, 0.1, 10_000),
        ("clusters", load.clusters, 1, 1_000),
        ("answer-tokens", load.answer_tokens, 1, 10**7),
        ("judged", load.judged, 0, 1),
        ("condensed", load.condensed, 0, 1),
        ("streams-per-worker", load.streams_per_worker, 1, 10_000),
        ("together", load.together, 1, 10_000),
        ("use", hardware.use, 0.05, 0.95),
        ("spare", hardware.spare, 0, 1000),
        ("nats-cores", hardware.nats_cores, 1, 1024),
        ("nic-gbit", hardware.nic_gbit, 0.1, 10_000),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{value:g} is not between {least:g} and {most:g}", param=f"--{name}")
