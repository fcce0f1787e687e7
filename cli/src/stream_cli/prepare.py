"""Before the first process of `stream up`: options and files are read, everything that can be checked is checked."""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from stream_cli import broker, effective
from stream_cli.effective import Machine
from stream_cli.home import Home, fill, rotate_logs, write_private
from stream_cli.keys import owner_key
from stream_cli.plan import PORTED, PROGRAMS, Ground, Wishes, chosen
from stream_cli.ports import free_ports, require_free
from stream_core.deployment import Deployment, parse
from stream_core.errors import ConfigError

_DEFAULT_PORT: Final = 8080


@dataclass(frozen=True)
class Options:
    """The command's options, as given."""

    home: Path
    host: str | None = None
    port: int | None = None
    config: Path | None = None
    only: tuple[str, ...] = ()
    cloud: bool = False
    model: str = ""
    wait_s: float = 180.0
    """Seconds until everything must be ready."""


@dataclass(frozen=True)
class Config:
    """The user's deployment file; without one, `Deployment()` and no sections."""

    path: Path | None = None
    text: str = ""
    given: Deployment = field(default_factory=Deployment)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """All that is known before the first process starts."""

    home: Home
    options: Options
    wishes: Wishes
    ground: Ground
    config: Config
    key: str
    source: str
    """`effective.local_source`."""


def read_config(path: Path | None) -> Config:
    """Read the user's file: the one named, else `stream.yaml` of the current folder, else none.

    Raises:
        ConfigError: not readable or not valid.
    """
    found = path or Path("stream.yaml")
    try:
        text = found.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if path is None:
            return Config()
        raise ConfigError(f"there is no file {path}", param="--config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read {found}: {error}", param="--config") from error
    return Config(found, text, *parse(text, source=str(found)))


def prepare(home: Home, options: Options) -> Start:
    """Check everything that can be checked, choose ports, and fill the state folder.

    Raises:
        ConfigError: something is wrong or missing; nothing has been started.
    """
    environ = dict(os.environ)
    config = read_config(options.config)
    given, sections = config.given, config.sections
    broker_url = environ.get("NATS_URL", "").strip()
    wishes = Wishes(
        host=options.host
        or environ.get("STREAM_GATEWAY__HOST")
        or sections.get("gateway", {}).get("host", "127.0.0.1"),
        port=_port(options.port, environ.get("STREAM_GATEWAY__PORT"), sections.get("gateway", {}).get("port")),
        only=chosen(options.only, broker_given=bool(broker_url)),
        model=options.model,
    )
    _require_packages(wishes.only)
    if "gateway" in wishes.only and wishes.port:
        require_free(wishes.host, wishes.port)
    if options.cloud and effective.cloud_provider(environ) is None and given.tier("cloud") is None:
        effective.complete(given, Machine("", environ, "", home.root, cloud=True))  # says what is missing
    told = broker.given(broker_url) if broker_url else None
    if told is not None:
        broker.probe(told.url)
        if told.password:
            write_private(home.nats_password("given"), told.password.encode())
    fill(home)
    if "nats" in wishes.only:
        broker.configure(home)
    rotate_logs(home, list(PROGRAMS))
    ground = Ground(
        home=home,
        python=sys.executable,
        environ=environ,
        ports=dict(zip(PORTED, free_ports(len(PORTED)), strict=True)),
        sections=sections,
        nats_binary=str(broker.binary()) if "nats" in wishes.only else "",
        nats_given=told,
    )
    key = owner_key(home, now=time.time())
    return Start(home, options, wishes, ground, config, key, effective.local_source(given))


def _port(option: int | None, variable: str | None, section: Any) -> int:
    for value in (option, variable, section):
        if value is not None:
            try:
                return int(value)
            except ValueError as error:
                raise ConfigError(f"{value!r} is no port number", param="gateway.port") from error
    return _DEFAULT_PORT


def _require_packages(names: Iterable[str]) -> None:
    """Check that each program is installed, without importing it."""
    needed = [f"stream_{name}" for name in names if name != "nats"]
    if "hpc_dispatch" in names:
        needed.append("stream_worker")
    missing = sorted(name for name in needed if find_spec(name) is None)
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not installed beside {sys.executable}; run `make up`, or use --only")
