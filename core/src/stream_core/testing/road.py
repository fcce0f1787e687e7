"""The whole HPC road as real processes, with a scripted engine at its end; each part can be killed on its own."""

import asyncio
import contextlib
import datetime
import json
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from stream_core import tickets
from stream_core.api_keys import KeyFile, dump_keys, new_key
from stream_core.certificates import ensure_certificates
from stream_core.files import write_private
from stream_core.testing import programs
from stream_core.testing.broker import MONITORED, Broker, free_port
from stream_core.testing.engine import MODEL, scripted_engine
from stream_core.testing.recorder import Recorder, record_tcp

_READY_S = 30.0
_POLL_S = 0.05
_WORKER_MARK = "ROAD_OF_THIS_WORKER"
"""An environment variable that workers inherit: they outlive their dispatch, so its process id does not find them."""
_CLUSTER_MARK = "ROAD_CLUSTER_OF_THIS_WORKER"
_HASTE = {"STREAM_HPC_DISPATCH__STOP_GRACE_S": "4"}
"""At a test's end no answer is waited for."""
_SERVICES = ("judge", "summarizer", "hpc_dispatch", "gateway")


@dataclass
class Road:
    """Where to ask, and the running parts."""

    folder: Path
    engine_url: str
    api_key: str
    brokers: list[Broker]
    stack: contextlib.ExitStack
    env: Mapping[str, str] = field(default_factory=dict)
    gates: list[Recorder] = field(default_factory=list)
    """In front of each relay, where asked for: the network between it and the workers."""
    broker_gates: list[Recorder] = field(default_factory=list)
    """In front of each broker node, likewise."""
    relays: list[programs.Program] = field(default_factory=list)
    services: dict[str, programs.Program] = field(default_factory=dict)

    @property
    def gateway_url(self) -> str:
        """Base, without /v1."""
        return f"http://127.0.0.1:{self.services['gateway'].ready['port']}"

    @property
    def nats_url(self) -> str:
        """All nodes."""
        if self.broker_gates:
            return ",".join(f"nats://127.0.0.1:{gate.port}" for gate in self.broker_gates)
        return ",".join(broker.url for broker in self.brokers)

    def pids(self) -> dict[str, int]:
        """Process ids by part; workers are found by what they are."""
        found = {name: program.process.pid for name, program in self.services.items()}
        found |= {"relay": self.relays[0].process.pid, "nats": self.brokers[0].pid}
        found |= {f"worker{number or ''}": worker.pid for number, worker in enumerate(self.workers())}
        return found

    def workers(self) -> list[psutil.Process]:
        """The running workers, the oldest first."""
        mark = str(self.folder / "dispatch")
        found = [
            process
            for process in psutil.process_iter(["cmdline", "environ", "create_time"])
            if "stream_worker" in (process.info["cmdline"] or [])
            and (process.info["environ"] or {}).get(_WORKER_MARK) == mark
        ]
        return sorted(found, key=lambda process: process.info["create_time"])

    def leases(self) -> list[bytes]:
        """Ids of all leases that had a worker on this machine."""
        return [bytes.fromhex(log.stem) for log in Path(self.folder, "dispatch", "workers").glob("*.log")]

    def workers_of(self, cluster: str) -> list[psutil.Process]:
        """The running workers of one of several clusters, the oldest first."""
        return [worker for worker in self.workers() if worker.environ().get(_CLUSTER_MARK) == cluster]

    def end_workers(self) -> None:
        """End what a killed dispatch left to itself."""
        for worker in self.workers():
            worker.kill()

    def relay_in_use(self, worker: psutil.Process | None = None) -> int:
        """Index of the relay that a worker, or the first one, is connected to."""
        ends = {
            connection.raddr.port
            for connection in (worker or self.workers()[0]).net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED
        }
        ports = [gate.port for gate in self.gates] or [relay.ready["port"] for relay in self.relays]
        return next(index for index, port in enumerate(ports) if port in ends)

    def start_relay(self, port: int = 0) -> None:
        """Start one more relay, or one on the port of another that is gone."""
        program = self.stack.enter_context(programs.start("stream_relay", env=_relay(self, port)))
        gone = [index for index, relay in enumerate(self.relays) if relay.ready["port"] == port]
        for index in gone:
            self.relays[index] = program
        if not gone:
            self.relays.append(program)

    def start_service(self, name: str) -> None:
        """Start a service, or start it again where it was."""
        old = self.services.get(name)
        env = _service(self, name, old.ready["port"] if old else 0)
        self.services[name] = self.stack.enter_context(programs.start(f"stream_{name}", env=env))


@contextlib.contextmanager
def run_road(
    folder: Path,
    *,
    relays: int = 1,
    workers: int = 1,
    judge: bool = False,
    gates: bool = False,
    brokers: int = 1,
    broker_limits: str = "max_pending: 8MB",
    pool: Mapping[str, Any] | None = None,
    clusters: Sequence[str] = ("road",),
    env: Mapping[str, str] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> Iterator[Road]:
    """Start brokers, engine, relays, hpc_dispatch with its workers, and gateway, until the block ends.

    Args:
        folder: for keys, certificates and logs.
        relays: how many.
        workers: of the one model, on each cluster.
        judge: also start judge and summarizer, and a local tier on the same engine, so that `auto` has a choice.
        gates: put a network that can be cut between workers and each relay, and before the broker.
        brokers: 1, or the nodes of a cluster.
        broker_limits: lines of their configuration. By default a client that does not read is cut off soon: the bound
            is small, so that a test reaches it.
        pool: fields of the workers' pools that differ.
        clusters: their names; one that has a file `down-<name>` in `folder` can't start a worker.
        env: variables of all services, of the relays, and of the workers.
        cluster: fields of the (first) cluster that differ, e.g. its backend and that one's section; its workers are
            this environment's.
    """
    ensure_certificates(folder / "tls", list(_SERVICES), now=datetime.datetime.now(datetime.UTC))
    private_pem, public_pem = tickets.new_signing_key()
    write_private(folder / "ticket.key", private_pem.encode())
    write_private(folder / "ticket.pub", public_pem.encode())
    write_private(folder / "lease.key", secrets.token_hex(32).encode())
    key, record = new_key("road", now=time.time())
    write_private(folder / "keys.json", dump_keys(KeyFile([record])))
    with contextlib.ExitStack() as stack:
        nodes = _brokers(folder, brokers, broker_limits)
        for node in nodes:
            node.start()
            stack.callback(node.stop)
        engine_url = stack.enter_context(scripted_engine())
        deployment = _deployment(folder, engine_url, workers, pool or {}, clusters, local=judge)
        if cluster is not None:
            mark = f"{_WORKER_MARK}={folder / 'dispatch'}"
            command = ["/usr/bin/env", mark, sys.executable, "-m", "stream_worker"]
            deployment["clusters"][0] |= {"worker_command": command, **cluster}
        (folder / "stream.yaml").write_text(yaml.safe_dump(deployment))
        road = Road(folder, engine_url, key, nodes, stack, env or {})
        stack.callback(road.end_workers)
        if gates:
            ports = [int(node.url.rpartition(":")[2]) for node in nodes]
            road.broker_gates = [stack.enter_context(record_tcp("127.0.0.1", port, keep=False)) for port in ports]
        for _ in range(relays):
            road.start_relay()
        if gates:
            ports = [relay.ready["port"] for relay in road.relays]
            road.gates = [stack.enter_context(record_tcp("127.0.0.1", port, keep=False)) for port in ports]
        for name in _SERVICES if judge else _SERVICES[2:]:
            road.start_service(name)
        yield road


def _brokers(folder: Path, count: int, limits: str) -> list[Broker]:
    routes = [free_port() for _ in range(count)]
    nodes = []
    for number, port in enumerate(routes):
        place = folder / f"nats{number}"
        place.mkdir()
        others = ", ".join(f'"nats://127.0.0.1:{other}"' for other in routes if other != port)
        cluster = f'cluster {{ name: road, listen: "127.0.0.1:{port}", routes: [{others}] }}\n' if count > 1 else ""
        nodes.append(Broker(place, f"server_name: node{number}\n{MONITORED}\n{limits}\n{cluster}"))
    return nodes


async def wait_hot(road: Road, *, workers: int = 1, within_s: float = _READY_S) -> None:
    """Wait until the hpc tier answers with so many workers; a real engine needs a longer limit.

    Raises:
        RuntimeError: it does not within the limit.
        TimeoutError: the gateway still waits for the first worker.
    """
    deadline = time.monotonic() + within_s
    body = {"model": "hpc", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    headers, limit = {"authorization": f"Bearer {road.api_key}"}, aiohttp.ClientTimeout(total=2 * within_s)
    async with aiohttp.ClientSession(headers=headers, timeout=limit) as session:
        while True:
            async with session.post(f"{road.gateway_url}/v1/chat/completions", json=body) as response:
                if response.status == 200 and await _ready_workers(road, session) >= workers:  # noqa: PLR2004
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the hpc tier does not answer: {await response.text()}")
            await asyncio.sleep(_POLL_S)


async def _ready_workers(road: Road, session: aiohttp.ClientSession) -> int:
    """Count the workers that answer; a worker's health port is in its log no more than in its job, so ask the OS."""
    ready = 0
    for worker in road.workers():
        for listening in worker.net_connections("tcp"):
            if listening.status == psutil.CONN_LISTEN:
                async with session.get(f"http://127.0.0.1:{listening.laddr.port}/readyz") as response:
                    ready += response.status == 200  # noqa: PLR2004  (HTTP's own number)
    return ready


def _tls(road: Road, name: str) -> dict[str, str]:
    prefix, folder = f"STREAM_{name.upper()}__TLS__", road.folder / "tls"
    return {
        f"{prefix}CA": str(folder / "ca.pem"),
        f"{prefix}CERTIFICATE": str(folder / f"{name}.pem"),
        f"{prefix}KEY": str(folder / f"{name}.key"),
    }


def _relay(road: Road, port: int) -> dict[str, str]:
    return {
        **road.env,
        # A fixed port, so that a relay can come back where it was.
        "STREAM_RELAY__PORT": str(port or free_port()),
        "STREAM_RELAY__NATS__URL": road.nats_url,
        "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(road.folder / "ticket.pub"),
    }


def _service(road: Road, name: str, port: int) -> dict[str, str]:
    common = {"STREAM_CONFIG": str(road.folder / "stream.yaml"), **_tls(road, name), **_HASTE, **road.env}
    if name != "gateway":
        common[f"STREAM_{name.upper()}__LISTEN"] = f"127.0.0.1:{port}"
    targets = {other: f"127.0.0.1:{program.ready['port']}" for other, program in road.services.items()}
    match name:
        case "hpc_dispatch":
            ports = [gate.port for gate in road.gates] or [relay.ready["port"] for relay in road.relays]
            state = str(road.folder / "dispatch")
            return common | {
                _WORKER_MARK: state,
                "STREAM_HPC_DISPATCH__NATS__URL": road.nats_url,
                "STREAM_HPC_DISPATCH__TICKET_PRIVATE_KEY_FILE": str(road.folder / "ticket.key"),
                "STREAM_HPC_DISPATCH__RELAYS": json.dumps([f"ws://127.0.0.1:{port}" for port in ports]),
                "STREAM_HPC_DISPATCH__STATE_DIR": state,
                "STREAM_HPC_DISPATCH__LEASE_KEY_FILE": str(road.folder / "lease.key"),
            }
        case "gateway":
            return common | {
                "STREAM_GATEWAY__PORT": str(port or free_port()),
                "STREAM_GATEWAY__NATS__URL": road.nats_url,
                "STREAM_GATEWAY__KEYS_FILE": str(road.folder / "keys.json"),
                "STREAM_GATEWAY__DISPATCH_TARGET": targets["hpc_dispatch"],
                **{f"STREAM_GATEWAY__{n.upper()}_TARGET": targets[n] for n in ("judge", "summarizer") if n in targets},
            }
        case _:
            return common


def _deployment(
    folder: Path, engine_url: str, workers: int, changes: Mapping[str, Any], clusters: Sequence[str], *, local: bool
) -> dict[str, Any]:
    model = {"id": MODEL, "context_window": 131_072}
    pool = {"model": model, "engine_url": engine_url, "min_ready": workers, "max_workers": workers, **changes}
    tiers: list[dict[str, Any]] = [{"name": "hpc", "kind": "hpc", "privacy": "restricted"}]
    if local:
        tiers.insert(0, {"name": "local", "privacy": "restricted", "base_url": f"{engine_url}/v1", "models": [model]})
    made = [
        {"name": name, "pools": [pool], **_worker_command(folder, name, several=len(clusters) > 1)} for name in clusters
    ]
    return {"tiers": tiers, "clusters": made}


def _worker_command(folder: Path, cluster: str, *, several: bool) -> dict[str, Any]:
    """Mark the workers of one of several clusters, so that they can be found, and kept from coming back."""
    if not several:
        return {}
    script = f'test -e "$1" && exit 1; export {_CLUSTER_MARK}="$2"; exec "$3" -m stream_worker'
    return {"worker_command": ["/bin/sh", "-c", script, "sh", str(folder / f"down-{cluster}"), cluster, sys.executable]}
