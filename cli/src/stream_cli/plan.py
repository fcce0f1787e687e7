"""Which programs start, with which arguments and environment. Pure: facts in, specifications out.

What `stream up` decides (ports, files, who talks to whom) is the default; a variable `STREAM_<PROGRAM>__<FIELD>` of
the user's environment wins over it, as it does everywhere. Secrets go as files, never as arguments.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stream_cli.effective import condenser, engine_command, key_variables
from stream_cli.home import TLS_NAMES, Home
from stream_core.deployment import Deployment
from stream_core.errors import ConfigError

SERVICES: Final = ("judge", "summarizer", "relay", "hpc_dispatch", "gateway")
PROGRAMS: Final = ("nats", "engine", *SERVICES)
START_ORDER: Final = ("nats", "hpc_dispatch", "engine", "relay", "gateway", "summarizer", "judge")
"""Those first that others wait for: a worker, and then its engine, can start only when hpc_dispatch runs."""
PORTED: Final = ("nats", "engine", "judge", "summarizer", "relay", "hpc_dispatch")
"""Programs that get a free port; the gateway's is the user's choice."""
STOP_ORDER: Final[Mapping[str, int]] = {
    "gateway": 0,  # it drains, while everything it needs still runs
    "hpc_dispatch": 1,  # its workers drain through the relay
    "relay": 2,
    "judge": 2,
    "summarizer": 2,
    "engine": 2,
    "nats": 3,
}
_OWN: Final = frozenset({"NATS_URL", "STREAM_CONFIG", "STREAM_PORT"})
"""Variables that speak to `stream up` alone."""
_LEAST_BACKEND_CONTEXT: Final = 1024
"""Tokens; the summarizer takes no smaller number."""
_GRACE_S: Final = "3"
"""Seconds that running streams get at the end; then the gateway ends them with an error event, and all is over soon."""
_STOP_GRACE_S: Final = "4"
"""What a worker gets then: less than hpc_dispatch itself, and enough, for the gateway has ended all answers by then."""
_NATS_CLIENTS: Final = ("relay", "hpc_dispatch", "gateway")


@dataclass(frozen=True)
class Spec:
    """One program to start."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Its whole environment."""
    ready_file: Path | None = None
    ready_port: int = 0
    """Where it greets when it is ready, for a program that writes no ready file."""
    deployment: Deployment | None = None
    """What it reads at its start; another one means another specification."""


@dataclass(frozen=True)
class Given:
    """A broker that somebody else runs, from `NATS_URL`; the credentials are taken out of the URL."""

    url: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for."""

    host: str = "127.0.0.1"
    port: int = 8080
    only: frozenset[str] = frozenset(PROGRAMS)
    model: str = ""
    """Of the embedded engine; empty leaves the choice to it."""


@dataclass(frozen=True)
class Ground:
    """Where the programs run."""

    home: Home
    python: str
    environ: Mapping[str, str]
    ports: Mapping[str, int]
    """One for each of `PORTED`."""
    sections: Mapping[str, Mapping[str, Any]]
    """The services' own sections of the user's file."""
    nats_binary: str = ""
    nats_given: Given | None = None


def chosen(only: Iterable[str], *, broker_given: bool) -> frozenset[str]:
    """Check the programs named by --only; none is all. A broker that is given is never started.

    Raises:
        ConfigError: an unknown name.
    """
    names = frozenset(only)
    if unknown := names - frozenset(PROGRAMS):
        raise ConfigError(f"no program {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}", param="--only")
    names = names or frozenset(PROGRAMS)
    return names - {"nats"} if broker_given else names


def engine_url(ground: Ground) -> str:
    """Name the address at which the embedded engine will answer, with its /v1."""
    port = ground.environ.get("STREAM_ENGINE__PORT") or ground.ports["engine"]
    return f"http://127.0.0.1:{port}/v1"


def nats(ground: Ground) -> Spec:
    """Plan the broker."""
    port = ground.ports["nats"]
    conf = ground.home.nats / "nats.conf"
    argv = (ground.nats_binary, "-c", str(conf), "-a", "127.0.0.1", "-p", str(port))
    path = {key: ground.environ[key] for key in ("PATH", "TMPDIR", "TZ") if key in ground.environ}
    return Spec("nats", argv, path, ready_port=port)


def engine(ground: Ground, wishes: Wishes) -> Spec:
    """Plan the embedded engine of the local tier; it reads no deployment."""
    env = {
        "STREAM_ENGINE__HOST": "127.0.0.1",
        "STREAM_ENGINE__PORT": str(ground.ports["engine"]),
        "STREAM_ENGINE__MODEL": "auto",
        "STREAM_ENGINE__API_KEY_FILE": str(ground.home.secret("engine.key")),
    }
    return _spec(
        "engine",
        engine_command(ground.python),
        env,
        ground,
        forced={"STREAM_ENGINE__MODEL": wishes.model} if wishes.model else {},
        hidden=key_variables(Deployment()),
        deployment=None,
    )


def services(ground: Ground, wishes: Wishes, deployment: Deployment) -> list[Spec]:
    """Plan the services that read the deployment."""
    extra = {
        "judge": _judge,
        "summarizer": _summarizer,
        "relay": _relay,
        "hpc_dispatch": _hpc_dispatch,
        "gateway": _gateway,
    }
    keys = key_variables(deployment)
    address = {"HOST": wishes.host, "PORT": str(wishes.port)}
    return [
        _spec(
            name,
            [ground.python, "-m", f"stream_{name}"],
            {**_tls(ground, name), **_broker_access(ground, wishes, name), **extra[name](ground, wishes, deployment)},
            ground,
            forced={f"STREAM_GATEWAY__{key}": value for key, value in address.items()} if name == "gateway" else {},
            hidden=set() if name == "gateway" else keys,
            deployment=deployment,
        )
        for name in SERVICES
        if name in wishes.only
    ]


def _spec(
    name: str,
    argv: list[str],
    env: Mapping[str, str],
    ground: Ground,
    *,
    forced: Mapping[str, str],
    hidden: set[str],
    deployment: Deployment | None,
) -> Spec:
    """Build one specification: `env` gives way to the user's file and environment, `forced` does not."""
    prefix = f"STREAM_{name.upper()}__"
    section = ground.sections.get(name, {})
    if name in SERVICES:
        env = {**env, f"{prefix}METRICS_PORT": "0"}  # for `stream doctor` and `stream top`; loopback, as by default
    ours = {key: value for key, value in env.items() if not _says(section, key.removeprefix(prefix))}
    inherited = {key: value for key, value in ground.environ.items() if key not in hidden and key not in _OWN}
    ready_file = ground.home.ready(name)
    forced = {**forced, f"{prefix}READY_FILE": str(ready_file), "STREAM_HOME": str(ground.home.root)}
    if deployment is not None:
        forced["STREAM_CONFIG"] = str(ground.home.deployment)
    return Spec(name, tuple(argv), {**ours, **inherited, **forced}, ready_file=ready_file, deployment=deployment)


def _says(section: Mapping[str, Any], path: str) -> bool:
    """Tell whether a section of the file sets the field of a variable such as NATS__URL."""
    found: Any = section
    for step in path.lower().split("__"):
        if not isinstance(found, Mapping) or step not in found:
            return False
        found = found[step]
    return True


def _tls(ground: Ground, name: str) -> dict[str, str]:
    if name not in TLS_NAMES:
        return {}
    prefix = f"STREAM_{name.upper()}__TLS__"
    return {
        f"{prefix}CA": str(ground.home.tls / "ca.pem"),
        f"{prefix}CERTIFICATE": str(ground.home.tls / f"{name}.pem"),
        f"{prefix}KEY": str(ground.home.tls / f"{name}.key"),
    }


def _broker_access(ground: Ground, wishes: Wishes, name: str) -> dict[str, str]:
    if name not in _NATS_CLIENTS:
        return {}
    prefix = f"STREAM_{name.upper()}__NATS__"
    if ground.nats_given is not None:
        found = {f"{prefix}URL": ground.nats_given.url}
        if ground.nats_given.user:
            found[f"{prefix}USER"] = ground.nats_given.user
        if ground.nats_given.password:
            found[f"{prefix}PASSWORD_FILE"] = str(ground.home.nats_password("given"))
        return found
    if "nats" not in wishes.only:
        return {}  # somebody else's; the user's environment says where
    return {
        f"{prefix}URL": f"nats://127.0.0.1:{ground.ports['nats']}",
        f"{prefix}USER": name,
        f"{prefix}PASSWORD_FILE": str(ground.home.nats_password(name)),
    }


def _listen(ground: Ground, name: str) -> str:
    """Say where a gRPC service listens: by the environment, by the file, else on its free port."""
    told = ground.environ.get(f"STREAM_{name.upper()}__LISTEN") or ground.sections.get(name, {}).get("listen")
    return str(told or f"127.0.0.1:{ground.ports[name]}")


def _target(ground: Ground, wishes: Wishes, name: str) -> dict[str, str]:
    if name not in wishes.only:
        return {}
    host, _, port = _listen(ground, name).rpartition(":")
    if port == "0":
        raise ConfigError("the gateway can't know a port that is chosen later; give one", param=f"{name}.listen")
    host = "127.0.0.1" if host in {"", "0.0.0.0", "[::]", "::"} else host
    variable = {"hpc_dispatch": "DISPATCH"}.get(name, name.upper())
    return {f"STREAM_GATEWAY__{variable}_TARGET": f"{host}:{port}"}


def _judge(ground: Ground, _wishes: Wishes, _deployment: Deployment) -> dict[str, str]:
    return {"STREAM_JUDGE__LISTEN": _listen(ground, "judge")}


def _summarizer(ground: Ground, _wishes: Wishes, deployment: Deployment) -> dict[str, str]:
    env = {"STREAM_SUMMARIZER__LISTEN": _listen(ground, "summarizer")}
    tier = condenser(deployment)
    if tier is not None:
        env["STREAM_SUMMARIZER__BACKEND_URL"] = tier.base_url
        env["STREAM_SUMMARIZER__BACKEND_MODEL"] = tier.models[0].engine_model
        env["STREAM_SUMMARIZER__BACKEND_PRIVACY"] = tier.models[0].privacy or tier.privacy
        env["STREAM_SUMMARIZER__BACKEND_CONTEXT"] = str(max(tier.models[0].context_window, _LEAST_BACKEND_CONTEXT))
        if tier.api_key_file is not None:
            env["STREAM_SUMMARIZER__BACKEND_KEY_FILE"] = str(tier.api_key_file)
    return env


def _relay_port(ground: Ground) -> int:
    told = ground.environ.get("STREAM_RELAY__PORT") or ground.sections.get("relay", {}).get("port")
    return int(told or ground.ports["relay"])


def _relay(ground: Ground, _wishes: Wishes, _deployment: Deployment) -> dict[str, str]:
    return {
        "STREAM_RELAY__HOST": "127.0.0.1",
        "STREAM_RELAY__PORT": str(_relay_port(ground)),
        "STREAM_RELAY__TICKET_PUBLIC_KEY_FILE": str(ground.home.secret("ticket.pub")),
    }


def _hpc_dispatch(ground: Ground, wishes: Wishes, _deployment: Deployment) -> dict[str, str]:
    env = {
        "STREAM_HPC_DISPATCH__LISTEN": _listen(ground, "hpc_dispatch"),
        "STREAM_HPC_DISPATCH__TICKET_PRIVATE_KEY_FILE": str(ground.home.secret("ticket.key")),
        "STREAM_HPC_DISPATCH__STATE_DIR": str(ground.home.logs),
        # Nothing outlives `stream up`: were hpc_dispatch killed, all would be stopped.
        "STREAM_HPC_DISPATCH__KEEP_WORKERS": "false",
        "STREAM_HPC_DISPATCH__STOP_GRACE_S": _STOP_GRACE_S,
    }
    if "nats" in wishes.only:  # another's broker need not let us have a bucket
        env["STREAM_HPC_DISPATCH__LEASE_KEY_FILE"] = str(ground.home.secret("lease.key"))
    if "relay" in wishes.only:
        env["STREAM_HPC_DISPATCH__RELAYS"] = f'["ws://127.0.0.1:{_relay_port(ground)}"]'
    return env


def _gateway(ground: Ground, wishes: Wishes, _deployment: Deployment) -> dict[str, str]:
    env = {
        "STREAM_GATEWAY__KEYS_FILE": str(ground.home.keys),
        "STREAM_GATEWAY__STATE_DIR": str(ground.home.accounts),
        "STREAM_GATEWAY__GRACE_S": _GRACE_S,
    }
    if "nats" in wishes.only:  # as for the leases
        env["STREAM_GATEWAY__BATCH_KEY_FILE"] = str(ground.home.secret("batch.key"))
    for name in ("judge", "summarizer", "hpc_dispatch"):
        env |= _target(ground, wishes, name)
    return env
