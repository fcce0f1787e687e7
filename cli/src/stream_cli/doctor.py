"""`stream doctor`: everything that must hold for a running `stream up`, each with what to do where it does not."""

import datetime
import http.client
import json
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stream_cli import check, engines, exposition, leftovers
from stream_cli.broker import OLDEST, version_of
from stream_cli.broker_rights import Broker, NotThere, faults_of
from stream_cli.home import NATS_USERS, TLS_NAMES, Home
from stream_cli.plan import SERVICES
from stream_cli.readiness import dialled
from stream_core.errors import ConfigError

_RENEW_DAYS: Final = 14
_CLOCK_S: Final = 2.0
_LEAST_FREE: Final = 1 << 30
_PRIVATE: Final = 0o077
_OK: Final = http.client.OK


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    area: str
    what: str
    ok: bool
    words: str
    """What was found; where it is not ok, what to do."""


Look = Callable[[Home, leftovers.Record | None], Iterable[Finding]]


def examine(home: Home) -> Iterator[Finding]:
    """Look at everything, one after the other; nothing is changed."""
    record = leftovers.read(home)
    for look in _LOOKS:
        yield from look(home, record)


def _folder(home: Home, _: leftovers.Record | None) -> Iterator[Finding]:
    if not home.root.is_dir():
        yield Finding(
            "state", str(home.root), ok=False, words="not there: `stream up` makes it, or give another --home"
        )
        return
    open_ = [path.name for path in (home.root, home.api_key, *home.root.glob("secrets/*")) if _is_open(path)]
    told = f"others can read {', '.join(open_)}: chmod go-rwx" if open_ else "readable by its owner only"
    yield Finding("state", "secrets", ok=not open_, words=told)
    free = shutil.disk_usage(home.root).free
    words = f"{free / 1e9:,.1f} GB free" + ("" if free > _LEAST_FREE else ": batches and leases may find no room")
    yield Finding("state", "disk", ok=free > _LEAST_FREE, words=words)


def _is_open(path: Path) -> bool:
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & _PRIVATE)


def _configuration(home: Home, _: leftovers.Record | None) -> Iterator[Finding]:
    if not home.deployment.exists():
        return
    try:
        deployment = check.check(home.deployment)
    except ConfigError as error:
        yield Finding("config", home.deployment.name, ok=False, words=error.message)
    else:
        words = f"{len(deployment.tiers)} tiers, {len(deployment.clusters)} clusters"
        yield Finding("config", home.deployment.name, ok=True, words=words)


def _certificates(home: Home, _: leftovers.Record | None) -> Iterator[Finding]:
    from cryptography import x509  # noqa: PLC0415  (slow to import)

    for name in ("ca", *TLS_NAMES):
        path = home.tls / f"{name}.pem"
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            words = f"can't be read ({type(error).__name__}): remove {home.tls} and start `stream up` again"
            yield Finding("certificates", path.name, ok=False, words=words)
            continue
        yield _validity(path.name, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _validity(name: str, begins: datetime.datetime, ends: datetime.datetime) -> Finding:
    now = datetime.datetime.now(datetime.UTC)
    if begins > now:
        return Finding("certificates", name, ok=False, words=f"valid from {begins:%Y-%m-%d %H:%M}: is the clock right?")
    days = (ends - now).days
    if days < _RENEW_DAYS:
        words = f"valid for {max(days, 0)} more days: start `stream up` again, it makes new ones"
        return Finding("certificates", name, ok=False, words=words)
    return Finding("certificates", name, ok=True, words=f"valid for {days} more days")


def _programs(home: Home, record: leftovers.Record | None) -> Iterator[Finding]:
    if record is None or not record.alive:
        yield Finding("programs", "stream up", ok=False, words=f"does not run under {home.root}: start it")
        return
    for name in record.programs:
        if not record.program_alive(name):
            yield Finding("programs", name, ok=False, words=f"is dead: {home.log(name)} says why")
        elif name in SERVICES:
            yield _probe(home, name)
        else:
            yield Finding("programs", name, ok=True, words="alive")


def _probe(home: Home, name: str) -> Finding:
    port = metrics_port(home, name)
    if not port:
        return Finding("programs", name, ok=True, words="alive; it has no port for probes (metrics_port)")
    status, body, reason = engines.ask(port, "/readyz")
    if status == _OK:
        return Finding("programs", name, ok=True, words="ready")
    words = body.decode("utf-8", "replace").strip()[:200] or reason
    return Finding("programs", name, ok=False, words=f"not ready: {words}; see {home.log(name)}")


def metrics_port(home: Home, name: str) -> int:
    """Find where a program of `stream up` has its numbers and probes; 0 when it says nothing."""
    return int(ready_facts(home, name).get("metrics_port", 0))


def ready_facts(home: Home, name: str) -> dict[str, Any]:
    """Read what a program of `stream up` said when it was ready."""
    try:
        read = json.loads(home.ready(name).read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _broker(home: Home, record: leftovers.Record | None) -> Iterator[Finding]:
    if record is None or not record.alive:
        return
    if "nats" not in record.programs:
        yield Finding("broker", "permissions", ok=True, words="somebody else's (NATS_URL): not looked at")
        return
    port = leftovers.nats_port(record)
    if not port:
        yield Finding("broker", "nats", ok=False, words="its port is not known: start `stream up` again")
        return
    for user in NATS_USERS:
        try:
            broker = Broker("127.0.0.1", port, user, home.nats_password(user).read_text(encoding="utf-8").strip())
            with broker:
                found = version_of(broker.version)
                if found is None or found < OLDEST:
                    oldest = ".".join(map(str, OLDEST))
                    yield Finding("broker", "version", ok=False, words=f"{broker.version}: {oldest} or newer is needed")
                faults = faults_of(user, broker)
        except (NotThere, OSError) as error:
            yield Finding("broker", user, ok=False, words=f"can't log in: {error}")
            continue
        told = "; ".join(faults) + ": start `stream up` again" if faults else "its own subjects and no others"
        yield Finding("broker", user, ok=not faults, words=told)


def _tiers(home: Home, record: leftovers.Record | None) -> Iterator[Finding]:
    if record is None or not record.alive or not record.port:
        return
    host = dialled(record.host).strip("[]")
    try:
        key = home.api_key.read_text(encoding="utf-8").strip()
    except OSError as error:
        yield Finding("tiers", "api-key", ok=False, words=f"can't be read: {error.strerror}")
        return
    status, body, reason = engines.ask(record.port, "/v1/tiers", host=host, key=key)
    try:
        tiers = json.loads(body)["data"] if status == _OK else None
    except (ValueError, KeyError, TypeError):
        tiers = None
    if not isinstance(tiers, list):
        words = f"the gateway does not list them (HTTP {status} {reason}); see {home.log('gateway')}"
        yield Finding("tiers", "gateway", ok=False, words=words)
        return
    for tier in tiers:
        state, why = str(tier.get("state", "")), str(tier.get("reason", ""))
        words = state + (f": {why}" if why else "") + (", a request starts a worker" if state == "cold" else "")
        yield Finding("tiers", str(tier.get("id", "")), ok=state != "offline", words=words)


def _clocks(home: Home, record: leftovers.Record | None) -> Iterator[Finding]:
    if record is None or not record.alive:
        return
    for name in SERVICES:
        port = metrics_port(home, name) if name in record.programs else 0
        if not port:
            continue
        asked = time.time()
        _, body, _ = engines.ask(port, "/metrics")
        told = exposition.Reading(exposition.read(body.decode("utf-8", "replace"))).sum("stream_clock_seconds")
        if not told:
            yield Finding("clocks", name, ok=False, words=f"it tells no time; see {home.log(name)}")
            continue
        # It looked at its clock somewhere between these two moments.
        apart = max(asked - told, told - time.time(), 0.0)
        words = "agrees with this one" if apart < _CLOCK_S else f"{apart:.0f} s apart from this one: run an NTP client"
        yield Finding("clocks", name, ok=apart < _CLOCK_S, words=words)


_LOOKS: Final[tuple[Look, ...]] = (_folder, _configuration, _certificates, _programs, _broker, _clocks, _tiers)
