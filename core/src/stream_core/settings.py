"""Settings: one class per program; `stream.yaml` gives its section, `STREAM_<PROGRAM>__<FIELD>` overrides it.

`STREAM_CONFIG` names the file; without one, everything has a working default. Secrets come from files or from the
environment, never from the YAML.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from stream_core.errors import ConfigError

if TYPE_CHECKING:
    from stream_core.deployment import Deployment

CONFIG_VARIABLE = "STREAM_CONFIG"


def config_path() -> Path | None:
    """Where the deployment file is, by the environment; None when there is none."""
    path = os.environ.get(CONFIG_VARIABLE)
    return Path(path) if path else None


def read_deployment(path: Path | None = None) -> "Deployment":
    """Read the deployment file.

    Args:
        path: of the file; None takes `config_path()`, and without that the defaults.

    Raises:
        ConfigError: not readable or not valid; the message names the line.
    """
    return _read(path)[0]


def _read(path: Path | None) -> "tuple[Deployment, dict[str, dict[str, Any]]]":
    # Only who reads a deployment file pays for YAML and its schema at start.
    from stream_core.deployment import Deployment, parse  # noqa: PLC0415

    path = path or config_path()
    if path is None:
        return Deployment(), {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", param=CONFIG_VARIABLE) from error
    return parse(text, source=str(path))


def program_config(program: str) -> SettingsConfigDict:
    """Build the `model_config` of a program's settings class."""
    return SettingsConfigDict(
        env_prefix=f"STREAM_{program.upper()}__", env_nested_delimiter="__", extra="forbid", frozen=True
    )


class ProgramSettings(BaseSettings):
    """Base of each program's settings class; subclasses set `program` and `model_config = program_config(...)`."""

    program: ClassVar[str]

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    ready_file: Path | None = None
    """Written once when the program is ready: its pid and ports as JSON."""

    @classmethod
    def read(cls) -> Self:
        """Read file and environment.

        Raises:
            ConfigError: a wrong value or an unknown field; the message names it and the variable that sets it.
        """
        prefix = cls.model_config.get("env_prefix", "")
        # The library reads only the variables that it looks for; a misspelt one must not pass in silence.
        for name in os.environ:
            field = name.upper().removeprefix(prefix.upper()).partition("__")[0].lower()
            if name.upper().startswith(prefix.upper()) and field not in cls.model_fields:
                raise ConfigError(f"{name}: no such setting; there are: {', '.join(sorted(cls.model_fields))}")
        try:
            return cls()
        except ValidationError as error:
            lines = [
                f"{prefix}{'__'.join(str(step) for step in item['loc']).upper()}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            ]
            raise ConfigError("; ".join(lines)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the signature is the library's)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, the file's section."""
        section = _read(None)[1].get(cls.program, {}) if config_path() else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=section)


class TraceSettings(BaseModel):
    """Where spans go. Without an endpoint there are none, and OpenTelemetry is not loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = ""
    """Of a collector that takes OTLP over HTTP: https://, or http:// on this machine, e.g. https://collector/v1/traces.
    Without it OpenTelemetry's variables count, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    sample_ratio: float = Field(default=0.02, ge=0, le=1)
    """Share of the requests that are recorded, of those whose caller has not decided it (`traceparent`)."""
    headers_file: Path | None = None
    """`name=value` lines that are sent to it, a token say."""
    ca_file: Path | None = None
    """PEM bundle for https; None takes the system's."""


class ServiceSettings(ProgramSettings):
    """Base of a service's settings: what all services can be told."""

    traces: TraceSettings = TraceSettings()
    metrics_host: str = "127.0.0.1"
    """Where `metrics_port` listens: whoever reaches it may read all numbers."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """A port of its own for `/metrics` and the probes, plain HTTP; 0 takes a free one."""


class TlsFiles(BaseModel):
    """Mutual TLS for gRPC: there is no plaintext mode. PEM files, made by `stream up` or by the institution."""

    model_config = ConfigDict(frozen=True)

    ca: Path
    certificate: Path
    key: Path


class NatsSettings(BaseModel):
    """How to reach the broker."""

    model_config = ConfigDict(frozen=True)

    url: str = "nats://127.0.0.1:4222"
    """tls:// for a broker on another machine; several nodes of a cluster are separated by commas."""
    user: str = ""
    password_file: Path | None = None
    nkey_file: Path | None = None
    """Seed of this program's NATS user key ("SU..."), instead of user and password."""
    ca_file: Path | None = None
    pending_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """What may wait to be written while the broker is slow or away."""


def read_secret(path: Path) -> str:
    """Read a secret from a file, without its closing newline.

    Raises:
        ConfigError: not readable, or empty.
    """
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"secret file {path}: {error}") from error
    if not secret:
        raise ConfigError(f"secret file {path} is empty")
    return secret
