"""The gateway's settings: the section "gateway" of stream.yaml, or `STREAM_GATEWAY__<FIELD>`."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from stream_core.settings import NatsSettings, ProgramSettings, TlsFiles, program_config

_Seconds = Annotated[float, Field(gt=0)]


class GatewaySettings(ProgramSettings):
    """Where it listens, whom it asks, what it allows."""

    program: ClassVar[str] = "gateway"
    model_config = program_config("gateway")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
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
    keys_file: Path
    """API keys as `stream keys` writes them; read again when it changes."""

    feedback_file: Path | None = None
    """Where thumbs of POST /v1/feedback are kept, as JSONL; None takes none."""
    feedback_max_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024

    max_body_bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    default_score: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of every tier while the judge is away: all alike, so the cheapest answers."""
    judge_deadline_ms: Annotated[int, Field(ge=1)] = 250
    fit_deadline_ms: Annotated[int, Field(ge=1)] = 3_000
    """How long a conversation may take to be condensed; the summarizer's own deadline is shorter."""
    grace_s: _Seconds = 30.0
    """What running streams get to finish after SIGTERM."""
    reload_interval_s: _Seconds = 1.0
    """How often keys and deployment file are looked at."""
    probe_interval_s: _Seconds = 2.0
    """How often nearby engines are asked whether they are up."""
    keep_alive_s: Annotated[int, Field(ge=1)] = 75
    """How long an idle client connection is kept."""
