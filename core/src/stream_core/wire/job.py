"""A pilot job: everything hpc_dispatch tells a worker, as one JSON object on the worker's standard input.

It carries the lease's bootstrap secret, so it is never an argument, an environment variable or a log line.
"""

import msgspec

from stream_core.wire.payloads import ModelOffer


class EngineSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the worker gets its engine: it attaches to `url`, or starts `command` and waits until it answers.

    In `command` and `environment`, `{port}` is replaced by a free port of the node and `{api_key_file}` by a file
    that holds a key drawn for this engine alone; in `environment` only, which no other user can read, `{api_key}` is
    that key itself. `url` may hold `{port}` when there is a command.
    """

    url: str = "http://127.0.0.1:{port}"
    command: list[str] = []
    environment: dict[str, str] = {}
    ready_path: str = "/health"
    start_timeout_s: float = 600.0


class PilotJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker is to do, and until when."""

    lease: str  # hex
    bootstrap_secret: bytes  # 32 bytes
    ticket: str
    relays: list[str]  # ws:// on loopback, wss:// elsewhere; tried in order
    expires_unix_s: float
    models: list[ModelOffer]
    engine: EngineSpec
    max_requests: int = 256  # at once; 1: the worker ends after its first answer
    ca_file: str = ""  # a PEM bundle for wss:// when the system's does not do
    health_port: int = 0
    trace: dict[str, str] = {}  # "traceparent" of the request that had it started
