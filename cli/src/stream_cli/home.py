"""The state folder (`STREAM_HOME`): keys, certificates, secrets, logs, and what runs now.

    api-key  keys.json  accounts/  tls/  secrets/  nats/  logs/<program>.log  run/<program>.json  run/stream.yaml  lock

Everything is made at the first start and kept. Only its owner can read it.
"""

import contextlib
import datetime
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream_core.errors import ConfigError

TLS_NAMES: Final = ("gateway", "judge", "summarizer", "hpc_dispatch")
NATS_USERS: Final = ("gateway", "relay", "hpc_dispatch", "backup")
_LOG_LIMIT: Final = 10 * 1024 * 1024
_LOOK_AGAIN: Final = datetime.timedelta(days=7)
_FOLDERS: Final = ("accounts", "tls", "secrets", "nats", "logs", "run")


@dataclass(frozen=True)
class Home:
    """Where things are under `STREAM_HOME`; `root` is absolute."""

    root: Path

    @property
    def api_key(self) -> Path:
        """The owner's own key, in clear, for the first calls and `stream chat`."""
        return self.root / "api-key"

    @property
    def keys(self) -> Path:
        """All keys, hashed: what the gateway reads."""
        return self.root / "keys.json"

    @property
    def accounts(self) -> Path:
        """Where the gateway keeps users, groups, projects and keys."""
        return self.root / "accounts"

    @property
    def tls(self) -> Path:
        """`ca.pem`, and `<service>.pem` and `<service>.key` for each of `TLS_NAMES`."""
        return self.root / "tls"

    @property
    def nats(self) -> Path:
        """The broker's configuration and its JetStream store."""
        return self.root / "nats"

    @property
    def run(self) -> Path:
        """Ready files and the effective deployment."""
        return self.root / "run"

    @property
    def deployment(self) -> Path:
        """The effective deployment, as the services read it."""
        return self.run / "stream.yaml"

    @property
    def running(self) -> Path:
        """What `stream up` started, with process ids: `stream status` and the next start read it."""
        return self.run / "up.json"

    @property
    def engine_facts(self) -> Path:
        """What the embedded engine served last time: the next start need not wait for it."""
        return self.root / "engine-facts.json"

    @property
    def logs(self) -> Path:
        """One log per program."""
        return self.root / "logs"

    @property
    def workers(self) -> Path:
        """Logs of the workers: hpc_dispatch makes this folder in the one that it is given."""
        return self.logs / "workers"

    def log(self, program: str) -> Path:
        """Name a program's log."""
        return self.logs / f"{program}.log"

    def ready(self, program: str) -> Path:
        """Name a program's ready file."""
        return self.run / f"{program}.json"

    def secret(self, name: str) -> Path:
        """Name a secret's file."""
        return self.root / "secrets" / name

    def nats_password(self, user: str) -> Path:
        """Name the file with a service's password at the broker."""
        return self.secret(f"nats-{user}.password")


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, atomically and with mode 0600 from its first byte."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_home(path: Path) -> Home:
    """Make the state folder where it is missing, readable by its owner only.

    Raises:
        ConfigError: it can't be made or written.
    """
    root = path.expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _FOLDERS:
            folder = root / name
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"can't make the state folder {root}: {error.strerror}", param="STREAM_HOME") from error
    return Home(root)


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Hold the state folder for one `stream up`; the kernel lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: another one holds it; the message names its process id.
    """
    with (home.root / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ConfigError(
                f"`stream up` runs already on {home.root} (process {holder}); stop it, or give another --home",
                param="STREAM_HOME",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def fill(home: Home) -> None:
    """Make the secrets that are missing: the broker's passwords, the keys of engine, leases, batches and tickets."""
    keys = (home.secret("engine.key"), home.secret("lease.key"), home.secret("batch.key"))
    for path in (*(home.nats_password(user) for user in NATS_USERS), *keys):
        if not path.exists():
            write_private(path, f"{secrets.token_hex(32)}\n".encode())
    private, public = home.secret("ticket.key"), home.secret("ticket.pub")
    if not (private.exists() and public.exists()):
        from stream_core.tickets import new_signing_key  # noqa: PLC0415  (only the first start pays for it)

        private_pem, public_pem = new_signing_key()
        write_private(public, public_pem.encode())
        write_private(private, private_pem.encode())


def certify(home: Home, now: datetime.datetime) -> None:
    """Make the certificates for mutual TLS, unless valid ones are there; it looks into them once a week.

    Certificates are made anew a month before their end, so a week without a look is safe, and quicker.
    """
    looked = home.tls / "looked"
    names = ("ca.pem", *(f"{name}.{suffix}" for name in TLS_NAMES for suffix in ("pem", "key")))
    with contextlib.suppress(OSError, ValueError):
        last = datetime.datetime.fromisoformat(looked.read_text(encoding="utf-8").strip())
        if datetime.timedelta() <= now - last < _LOOK_AGAIN and all((home.tls / name).exists() for name in names):
            return
    from stream_core.certificates import ensure_certificates  # noqa: PLC0415  (slow to import)

    ensure_certificates(home.tls, list(TLS_NAMES), now=now)
    write_private(looked, f"{now.isoformat()}\n".encode())


def rotate_logs(home: Home, programs: list[str], limit: int = _LOG_LIMIT) -> None:
    """Set a log aside as `<program>.log.1` when it is larger than `limit` bytes."""
    for program in programs:
        path = home.log(program)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > limit:
                path.replace(path.with_name(f"{path.name}.1"))
