"""The gateway's settings: the section "gateway" of stream.yaml, or `STREAM_GATEWAY__<FIELD>`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from stream_core.settings import NatsSettings, ServiceSettings, TlsFiles, program_config
from stream_core.wire.window import Limits
from stream_gateway.accounts.providers import Introspection, OidcIssuer, StoreUrl

_Seconds = Annotated[float, Field(gt=0)]


_MIB = 1024 * 1024
MOST_PIXELS = 178_956_970
"""At which Pillow refuses to open an image, and with it vLLM and most engines: as RGB they are half a gigabyte."""
_DAY_S = 86_400.0


class BatchSettings(BaseModel):
    """What an owner (an API key) may keep and run, and how batches are run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: bool = True
    """Whether this replica runs lines; false leaves that to other replicas."""
    max_file_bytes: Annotated[int, Field(ge=1024)] = 512 * _MIB
    max_files: Annotated[int, Field(ge=1)] = 1_000
    max_total_bytes: Annotated[int, Field(ge=1024)] = 10 * 1024 * _MIB
    max_open_batches: Annotated[int, Field(ge=1)] = 20
    max_lines: Annotated[int, Field(ge=1)] = 100_000
    """Of one batch."""
    max_window_s: _Seconds = 7 * _DAY_S
    """The longest completion window."""
    file_ttl_s: _Seconds = 30 * _DAY_S
    """How long a file is kept, and what came of a batch."""
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    """Lines that one replica runs at once, when nothing else is in the way."""
    redeliver_s: Annotated[float, Field(ge=1)] = 30.0
    """A line whose replica has been silent for so long is given to another one."""
    look_s: _Seconds = 1.0
    """How often a replica looks for what has changed, if nobody tells it."""
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    """Nodes of the broker that keep a copy; used when its streams are made."""


class ResponseSettings(BaseModel):
    """What an owner (an API key) may keep of the Responses API. What is too much pushes out the oldest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ttl_s: _Seconds = 30 * _DAY_S
    """How long a response is kept."""
    max_kept: Annotated[int, Field(ge=1)] = 1_000
    max_total_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * _MIB
    max_bytes: Annotated[int, Field(ge=1024)] = 64 * _MIB
    """Of one conversation, images included; a longer one is 413."""


class FetchSettings(BaseModel):
    """Images that requests name by an address: no engine fetches anything, the gateway does it where this allows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: list[Annotated[str, Field(pattern=r"^\.?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[1-9][0-9]{0,4})?$")]] = []
    """Names, with a port where it is not the standard one; ".example.org" means all below it. Empty: nothing is
    fetched, such a request is 400. Addresses that are not of the public internet are never asked."""
    privacy: str = "public"
    """The most confidential class of a request of which addresses are fetched: the host sees the address."""
    max_bytes: Annotated[int, Field(ge=1)] = 20 * _MIB
    """Of all images of one request."""
    max_urls: Annotated[int, Field(ge=1)] = 16
    timeout_s: _Seconds = 10.0
    """Of one image, redirects included."""


class HttpsFiles(BaseModel):
    """PEM files with which the gateway ends TLS itself; they are read once, at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path
    key: Path


class GatewaySettings(ServiceSettings):
    """Where it listens, whom it asks, what it allows."""

    program: ClassVar[str] = "gateway"
    model_config = program_config("gateway")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    https: HttpsFiles | None = None
    """None: plain HTTP, for loopback or behind a proxy on the same machine."""
    tls: TlsFiles
    """For the calls to judge, summarizer and hpc_dispatch."""
    nats: NatsSettings = NatsSettings()
    """The broker of the HPC tier; not used without one."""
    judge_target: str = ""
    """"host:port"; empty: every request gets the default score."""
    summarizer_target: str = ""
    """"host:port"; empty: conversations are never condensed."""
    dispatch_target: str = ""
    """"host:port"; empty: tiers of kind hpc are away."""
    keys_file: Path | None = None
    """API keys as `stream keys` writes them without a gateway; read again when it changes. They are valid beside
    those of the store."""
    store_url: StoreUrl = ""
    """Of the accounts: postgresql://USER@HOST/DATABASE or sqlite:////PATH, without a password. TLS is used unless
    the server is on this machine. Empty: a file of SQLite in `state_dir`."""
    store_password_file: Path | None = None
    """The PostgreSQL user's password; without it the driver's own PGPASSWORD and PGPASSFILE count."""
    store_ca_file: Path | None = None
    """Who vouches for the PostgreSQL server; None: the system's authorities."""
    state_dir: Path | None = None
    """Where this machine keeps accounts; None, and no `store_url`: keys of `keys_file` alone."""
    store_look_s: Annotated[float, Field(gt=0, le=4)] = 1.0
    """How often a replica looks for changes by others: a key that is revoked elsewhere goes on for so long."""
    store_patience_s: _Seconds = 30.0
    """How long a request waits for the first reading of the accounts, right after the start."""
    oidc: tuple[OidcIssuer, ...] = ()
    """Whose access tokens let their bearers in, beside API keys."""
    introspection: Introspection | None = None
    """Who is asked about tokens that are no JWTs of those."""
    batch_key_file: Path | None = None
    """Secret of 64 hex digits that seals files, batches and responses at the broker; None: there are none. All
    replicas need the same one."""
    batches: BatchSettings = BatchSettings()
    responses: ResponseSettings = ResponseSettings()

    feedback_max_bytes: Annotated[int, Field(ge=1024)] = 64 * _MIB
    """What thumbs of POST /v1/feedback may take at the broker; used when their stream is made."""
    feedback_ttl_s: _Seconds = 365 * _DAY_S
    """How long a thumb is kept."""
    feedback_privacy: str = "public"
    """The most confidential class of a prompt that is kept with a thumb: whoever calibrates the judge reads it."""

    fetch_urls: FetchSettings = FetchSettings()

    trace_content: bool = False
    """Whether spans hold what was asked and answered: of requests of the policy's least confidential class alone."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Of a request; 20 MB of images are 27 MB as base64."""
    max_image_pixels: Annotated[int, Field(ge=1)] = MOST_PIXELS
    """Of one image, as its own header says: what a few bytes claim, an engine would unpack."""
    default_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of every tier while the judge is away: all alike, so the cheapest answers."""
    judge_deadline_ms: Annotated[int, Field(ge=1)] = 250
    fit_deadline_ms: Annotated[int, Field(ge=1)] = 3_000
    """How long a conversation may take to be condensed; the summarizer's own deadline is shorter."""
    max_window_bytes: Annotated[int, Field(ge=256 * 1024, le=16 * 1024 * 1024)] = Limits().most
    """What one answer of an hpc tier may have on its way or unread; it begins with 256 KiB and grows with the path."""
    window_budget_bytes: Annotated[int, Field(ge=0)] = Limits().budget
    """By how much the windows of all answers may have grown, together. With the windows that they began with it should
    stay below the broker's max_pending (64 MB by default), or a gateway that stands still is disconnected."""
    lease_s: Annotated[float, Field(ge=1)] = 15.0
    """Requests under way at a replica of which nothing was heard for so long count no more for limits of requests at
    once."""
    ledger_alive_s: Annotated[float, Field(ge=1)] = 30.0
    """A replica of which nothing was heard for so long is dead: what it had under way is charged what was reserved."""
    ledger_privacy: str = "public"
    """The most confidential class of a request whose contents the ledger keeps, where a project wants contents: they
    lie in the store of accounts, not sealed."""
    grace_s: _Seconds = 30.0
    """What running streams get to finish after SIGTERM."""
    reload_interval_s: _Seconds = 1.0
    """How often keys and deployment file are looked at."""
    max_waiting: Annotated[int, Field(ge=1)] = 1_000
    """Requests that may wait for a worker at once; a further one is 503."""
    heartbeat_s: _Seconds = 5.0
    """Between two comments to a client whose stream waits for a worker."""
    probe_interval_s: _Seconds = 2.0
    """How often nearby engines are asked whether they are up."""
    max_connections: Annotated[int, Field(ge=1)] = 4_096
    """Of clients, at once; a further one is 503. Fewer where the process may not open as many files."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Of request line and headers; more is 431."""
    slow_request_s: _Seconds = 30.0
    """What a request may take to arrive; a large one gets a second more for each `slow_bytes_per_s`. Then it is 408."""
    slow_bytes_per_s: Annotated[int, Field(ge=1)] = 500
    keep_alive_s: Annotated[int, Field(ge=1)] = 75
    """How long an idle client connection is kept."""
