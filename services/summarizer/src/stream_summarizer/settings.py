"""The summarizer's settings: `STREAM_SUMMARIZER__<FIELD>`, or the section `summarizer` of `stream.yaml`."""

from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from stream_core.settings import NatsSettings, ServiceSettings, TlsFiles, program_config

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class SummarizerSettings(ServiceSettings):
    """Everything an operator may decide about the summarizer."""

    program: ClassVar[str] = "summarizer"
    model_config = program_config("summarizer")

    listen: str = "127.0.0.1:0"
    """host:port for gRPC; port 0 takes a free one."""
    tls: TlsFiles
    """Mutual TLS; there is no other mode."""
    deadline_ms: int = Field(default=800, ge=10, le=60_000)
    """A model that condenses has until then; afterwards extraction answers. A request may set its own."""
    backend_url: str = ""
    """OpenAI-compatible server that condenses, with its /v1; empty: extraction only. https, or http on loopback."""
    backend_model: str = ""
    """The model's name there."""
    backend_key_file: Path | None = None
    """Its API key, if it wants one."""
    backend_privacy: str = "public"
    """The most confidential class of text that the model may see; what is beyond is condensed by extraction."""
    backend_context: int = Field(default=8192, ge=1024)
    """The model's context window in tokens; a longer text is shortened by extraction before it is sent."""
    summary_tokens: int = Field(default=512, ge=64, le=8192)
    """A model's summary is at most this long."""
    safety_margin: float = Field(default=0.02, ge=0, le=0.5)
    """Share of the window kept free where token counts are estimates."""
    image_tokens: int = Field(default=1600, ge=1)
    """What one image counts: its size in the model's tokens is not known here."""
    cache_entries: int = Field(default=4096, ge=1)
    cache_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Condensed blocks kept in memory; the longest unused make room."""
    nats: NatsSettings = NatsSettings()
    """The broker, where a model's summaries are kept for every replica; not connected to without `store_key_file`."""
    store_key_file: Path | None = None
    """64 hex digits that seal them, the same for all replicas; None: they are kept in memory only."""
    store_bucket: str = Field(default="stream-summaries", pattern=r"^[A-Za-z0-9_-]+$")
    store_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Of a new bucket, at most; when it is full nothing is added until something expires."""
    store_ttl_s: float = Field(default=86_400.0, ge=1)
    """A summary is forgotten after that time."""
    store_replicas: int = Field(default=1, ge=1, le=5)
    max_messages: int = Field(default=20_000, ge=1)
    """Of one conversation."""
    max_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Of one conversation's messages and tools together."""
    threads: int = Field(default=2, ge=1, le=64)
    """Conversations counted and condensed at the same time; more wait."""

    @field_validator("backend_url")
    @classmethod
    def _sealed(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError("holds a user or a password; put the key into backend_key_file")
        if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            return url.rstrip("/")
        raise ValueError(f"{url!r}: https:// is wanted, or http:// on this machine's own address")
