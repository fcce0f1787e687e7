"""Dispatch's settings: environment `STREAM_HPC_DISPATCH__*`, or the section `hpc_dispatch` of stream.yaml."""

import ipaddress
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from stream_core.settings import NatsSettings, ServiceSettings, TlsFiles, program_config

Seconds = Annotated[float, Field(gt=0)]


class DispatchSettings(ServiceSettings):
    """Everything an operator can set."""

    program: ClassVar[str] = "hpc_dispatch"
    model_config = program_config("hpc_dispatch")

    listen: str = "127.0.0.1:0"
    """Of gRPC: "host:port"; port 0 takes a free one."""
    tls: TlsFiles
    nats: NatsSettings = NatsSettings()
    ticket_private_key_file: Path
    """PEM of the Ed25519 key that signs relay tickets; the relays hold its public half."""
    relays: list[str] = Field(default_factory=list)
    """Where workers connect, tried in order: wss://, or ws:// on a loopback address."""
    relay_ca_file: str = ""
    """PEM bundle on the workers' machines, when the system's own does not know the relays' certificates."""
    state_dir: Path
    """Logs of local workers; what the plan must not forget when this program is killed."""
    lease_key_file: Path | None = None
    """Secret of 64 hex digits that seals the leases in the broker's bucket; None keeps leases in memory only."""
    lease_bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "stream-leases"
    """JetStream key-value bucket; all replicas of this program name the same one."""
    lease_replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Nodes of the broker that keep a copy, for a new bucket."""
    lease_refresh_s: Seconds = 10.0
    """How often an unchanged lease is written again, with its worker's last sign of life."""
    advertise: str = ""
    """"host:port" (port 0: the one that is listened on) where other replicas reach this one's gRPC. Set, replicas elect
    a leader, which needs `lease_key_file` and `keep_workers`; empty: this is the only one."""
    peer_name: str = "hpc_dispatch"
    """What the other replicas' certificates must name."""
    leader_lease_s: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    """A leader that the broker did not confirm for so long stops acting; a quarter later another one may lead."""
    keep_workers: bool = True
    """Whether local workers go on when this program is killed; its next start takes them over from the bucket."""
    worker_command: list[str] = Field(default_factory=lambda: [sys.executable, "-m", "stream_worker"], min_length=1)
    """Starts a local worker; it reads its job from standard input."""

    tick_s: Seconds = 0.25
    """How often the clocks below are looked at."""
    publish_interval_s: Seconds = 0.1
    """Between two snapshots of the pool."""
    look_s: Seconds = 5.0
    """How often a cluster is asked where a job stands whose worker has not spoken."""
    lost_after_s: Seconds = 10.0
    """Without a heartbeat (workers send one every 2 s)."""
    remove_after_s: Seconds = 30.0
    """What a lost worker gets to come back before it is stopped and replaced."""
    start_margin_s: Seconds = 30.0
    """What a worker may take to start, besides its engine's own limit."""
    renew_before_s: Seconds = 120.0
    """Before a lease's end its successor is started, earlier where starts were measured to take longer; at most half
    of the lease."""
    expiry_grace_s: Seconds = 30.0
    """What a worker gets to finish after its lease's end."""
    ending_s: Seconds = 60.0
    """What a cluster's daily budget keeps for a job that was told to stop to be gone."""
    backoff_first_s: Seconds = 0.5
    backoff_last_s: Seconds = 60.0
    """Between failed starts: from the first, doubling, to the last."""
    stop_grace_s: Seconds = 16.0
    """Between SIGTERM and SIGKILL of a local worker, or the order to cancel a job. A worker lets its answers go on for
    `STREAM_WORKER__DRAIN_S` (10 s) and then ends its engine (5 s): less than both would cut what it has promised."""

    @model_validator(mode="after")
    def _replicas_share(self) -> Self:
        if self.advertise and not (self.lease_key_file and self.keep_workers):
            raise ValueError("advertise: replicas need lease_key_file and keep_workers, what one starts the next takes")
        return self

    @field_validator("relays")
    @classmethod
    def _sealed_outside(cls, urls: list[str]) -> list[str]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in {"ws", "wss"} or not parts.hostname or parts.username or parts.password:
                raise ValueError(f"{url!r} must be wss://host[:port][/path], without user and password")
            if parts.scheme == "ws" and not _is_loopback(parts.hostname):
                raise ValueError(f"{url!r} must be wss://: ws:// is for loopback addresses only")
        return urls


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
