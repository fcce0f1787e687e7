"""The relay's settings: environment `STREAM_RELAY__*`, or the section `relay` of stream.yaml."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from stream_core.settings import NatsSettings, ServiceSettings, program_config
from stream_core.wire.frames import DEFAULT_MAX_FRAME

Seconds = Annotated[float, Field(gt=0)]


class RelaySettings(ServiceSettings):
    """Everything an operator can set."""

    program: ClassVar[str] = "relay"
    model_config = program_config("relay")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    tls_certificate: Path | None = None
    """PEM; with `tls_key` the relay speaks wss:// itself instead of leaving that to an ingress."""
    tls_key: Path | None = None
    nats: NatsSettings = NatsSettings()
    ticket_public_key_file: Path
    """PEM of hpc_dispatch's Ed25519 public key: who may connect."""
    max_frame: Annotated[int, Field(ge=4096)] = DEFAULT_MAX_FRAME
    """Bytes of one frame, header included."""
    max_message: Annotated[int, Field(ge=4096)] = 960 * 1024
    """Bytes of one message; must stay below the broker's max_payload."""
    max_frames_per_s: Annotated[int, Field(ge=100)] = 200_000
    """Of one worker; more closes its socket."""
    max_unauthenticated: Annotated[int, Field(ge=1)] = 256
    """Sockets that have not said HELLO yet."""
    hello_timeout_s: Seconds = 10.0
    ping_interval_s: Seconds = 10.0
    """Silence after which a worker is asked whether it lives; twice that closes its socket."""
    pause_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    """Bytes waiting for the broker at which workers' sockets are no longer read."""
    max_worker_backlog: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Bytes waiting for one worker's socket at which it is closed: it no longer reads."""
    drain_s: Annotated[float, Field(ge=0)] = 5.0
    """How long a relay that was told to stop waits for its workers to leave."""
