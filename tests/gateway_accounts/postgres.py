"""A real PostgreSQL server for tests, as an unprivileged user, since it refuses to run as root."""

import contextlib
import datetime
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from stream_core.certificates import ensure_certificates
from stream_core.testing.broker import free_port

USER = "stream"
PASSWORD = "of a test's server"
_READY_S = 30.0
_HOMES = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")


def binary(name: str) -> str | None:
    """Where one of PostgreSQL's programs is; None when it is not installed."""
    return shutil.which(name, path=os.pathsep.join([*_HOMES, os.environ.get("PATH", "")]))


@dataclass
class Postgres:
    """A server, on or off."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def password_file(self) -> Path:
        """With the password of `USER`."""
        return self.folder / "password"

    def url(self, database: str) -> str:
        """The setting store_url of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def ca_file(self) -> Path:
        """Of the authority that vouches for it."""
        return self.folder / "tls" / "ca.pem"

    def initialise(self) -> None:
        """Make its folder."""
        ensure_certificates(self.folder / "tls", ["postgres"], now=datetime.datetime.now(datetime.UTC))
        for path in (self.folder / "tls", *(self.folder / "tls").iterdir()):
            _own(path)
        self.password_file.write_text(PASSWORD)
        _own(self.password_file)
        data, password = str(self.folder / "data"), f"--pwfile={self.password_file}"
        how = ("--auth=scram-sha-256", f"--username={USER}", "--no-sync", "--encoding=UTF8", "--locale=C")
        subprocess.run(
            _unprivileged(binary("initdb"), "-D", data, password, *how), check=True, capture_output=True, cwd="/"
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        tls = self.folder / "tls"
        chosen = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": self.port, "fsync": "off"}
        chosen |= {"ssl": "on", "ssl_cert_file": tls / "postgres.pem", "ssl_key_file": tls / "postgres.key"}
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        command = _unprivileged(binary("postgres"), "-D", str(self.folder / "data"), *options)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
        deadline = time.monotonic() + _READY_S
        while subprocess.run(
            [binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop it as a power cut would: nobody is told."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(_READY_S)
            self.process = None

    async def create(self, database: str) -> str:
        """Make an empty database; its URL."""
        where = {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD}
        connection = await asyncpg.connect(database="postgres", **where)
        try:
            await connection.execute(f'CREATE DATABASE "{database}"')
        finally:
            await connection.close()
        return self.url(database)


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Run a server until the block ends."""
    with tempfile.TemporaryDirectory(prefix="stream-postgres-") as folder:
        server = Postgres(Path(folder))
        _own(server.folder)
        server.initialise()
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _unprivileged(*command: str | None) -> Sequence[str]:
    words = [word for word in command if word is not None]
    if os.geteuid():
        return words
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *words]
