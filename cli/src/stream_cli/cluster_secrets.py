"""`make k8s-secrets`: keys and certificates of an installation in Kubernetes, as files for `kubectl apply -k`.

What is there is kept, so that it may run again: after a host name was added, or before certificates end. The folder is
the installation's identity: it belongs into a vault or a backup, and never into a repository.

    authority/            sign certificates; stay with the operator, in no Secret
    admin.key             the first API key, in clear; in no Secret
    <service>/            one Secret each, `stream-<service>`; a file put there by hand (a cloud key) goes along
    outside/              the same for what runs in overlay relay-outside/outside
    kustomization.yaml    the Secrets, for `kubectl apply -k`
"""

import argparse
import datetime
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from stream_cli import keys
from stream_cli.cluster_accounts import BACKUPS, LEAF, OUTER_RELAY, USERS, accounts, leaf_accounts
from stream_core import nkeys, tickets
from stream_core.certificates import Authority
from stream_core.errors import ConfigError
from stream_core.files import write_private

ADMIN: Final = "admin"
SERVICES: Final = ("gateway", "judge", "summarizer", "hpc_dispatch", "relay", "nats", "postgres")
"""Those with a certificate."""
_AUTHORITY_LIFETIME: Final = datetime.timedelta(days=3650)
_OUTSIDE: Final = ("relay", "nats")
_CLIENTS_OF_POSTGRES: Final = (
    "# TLS and a password for everybody but the pod itself.\nlocal all all trust\nhostssl all all all scram-sha-256\n"
)
_MORE_NAMES: Final = {"nats": ("nats-nodes", "*.nats-nodes")}


@dataclass(frozen=True)
class Installation:
    """Where the files go, and how the services are called."""

    folder: Path
    namespace: str = "stream"
    hosts: Mapping[str, Sequence[str]] | None = None
    """Further names and addresses, by service: of a relay that ends TLS itself, of the broker's leaf port."""

    @property
    def outside(self) -> Path:
        """What runs in overlay relay-outside/outside."""
        return self.folder / "outside"

    def place(self, service: str) -> Path:
        """The folder that becomes a service's Secret."""
        return self.folder / _called(service)

    def names(self, service: str) -> list[str]:
        """Host names and addresses for a service's certificate."""
        domain = f".{self.namespace}.svc"
        ends = ("", f".{self.namespace}", domain, f"{domain}.cluster.local")
        short = [_called(service), *_MORE_NAMES.get(service, ())]
        inside = [f"{name}{end}" for name in short for end in ends]
        return [*inside, "localhost", "127.0.0.1", *(self.hosts or {}).get(service, ())]


def _called(service: str) -> str:
    """What Kubernetes takes as a name."""
    return service.replace("_", "-")


def make(installation: Installation, *, now: float, renew: bool = False) -> None:
    """Make what is missing.

    Args:
        installation: see there.
        now: unix seconds.
        renew: sign new certificates with the same authorities, for names that were added or certificates that end.

    Raises:
        ConfigError: a file that is there is not what it should be, or the folder can't be written.
    """
    root, outside = installation.folder, installation.outside
    made = [root, outside, *(installation.place(service) for service in SERVICES)]
    made += [root / name for name in ("authority", "ingress", "store", "backup")]
    made += [outside / name for name in (*_OUTSIDE, "ingress")]
    try:
        for folder in made:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        _certificates(installation, _aware(now), renew=renew)
        _own_secrets(installation, now)
        _broker_users(installation)
        _kustomization(root, [*map(_called, SERVICES), "ingress", "store", "backup"], installation.namespace)
        _kustomization(outside, [*_OUTSIDE, "ingress"], installation.namespace)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


def _authority(folder: Path, name: str, now: datetime.datetime) -> Authority:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    if certificate.exists() and key.exists():
        return Authority.read(certificate.read_bytes(), key.read_bytes())
    made = Authority.new(now=now, lifetime=_AUTHORITY_LIFETIME)
    write_private(key, made.key_pem)
    write_private(certificate, made.pem)
    return made


def _certificates(installation: Installation, now: datetime.datetime, *, renew: bool) -> None:
    """Sign with three authorities: whose certificate one is says what it is good for.

    One for services. One for the broker's own nodes: a route is trusted with every account, so a service's certificate
    must not do. One for what runs outside: with it nobody passes for a service inside.
    """
    authorities = installation.folder / "authority"
    inside, routes, outside = (_authority(authorities, name, now) for name in ("inside", "routes", "outside"))

    def issue(folder: Path, service: str, authority: Authority, name: str = "tls") -> None:
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        if renew or not (certificate.exists() and key.exists()):
            certificate_pem, key_pem = authority.issue(_called(service), installation.names(service), now=now)
            write_private(key, key_pem)
            write_private(certificate, certificate_pem)

    for service in SERVICES:
        issue(installation.place(service), service, inside)
        write_private(installation.place(service) / "ca.pem", inside.pem)
    issue(installation.place("nats"), "nats", routes, "route")
    write_private(installation.place("nats") / "route-ca.pem", routes.pem)
    write_private(installation.place("nats") / "outside-ca.pem", outside.pem)
    write_private(installation.folder / "ingress" / "ca.crt", inside.pem)
    write_private(installation.folder / "backup" / "ca.pem", inside.pem)
    for service in _OUTSIDE:
        issue(installation.outside / service, service, outside)
        write_private(installation.outside / service / "ca.pem", outside.pem)
    write_private(installation.outside / "nats" / "inside-ca.pem", inside.pem)
    write_private(installation.outside / "ingress" / "ca.crt", outside.pem)


def _own_secrets(installation: Installation, now: float) -> None:
    place = installation.place
    for path in (
        place("gateway") / "batch.key",
        place("gateway") / "engine.key",
        place("summarizer") / "store.key",
        place("hpc_dispatch") / "lease.key",
        place("postgres") / "password",
    ):
        _once(path, lambda: secrets.token_hex(32))
    write_private(installation.folder / "store" / "password", (place("postgres") / "password").read_bytes())
    write_private(place("postgres") / "pg_hba.conf", _CLIENTS_OF_POSTGRES.encode())
    private, public = place("hpc_dispatch") / "ticket.key", place("relay") / "ticket.pub"
    if not (private.exists() and public.exists()):
        private_pem, public_pem = tickets.new_signing_key()
        write_private(public, public_pem.encode())
        write_private(private, private_pem.encode())
    write_private(installation.outside / "relay" / "ticket.pub", public.read_bytes())
    _once(
        installation.folder / "admin.key",
        lambda: keys.create(place("gateway") / "keys.json", ADMIN, now=now, admin=True),
    )


def _broker_users(installation: Installation) -> None:
    seeds = {service: installation.place(service) / "nats.seed" for service in USERS}
    for user in BACKUPS:
        seeds[user] = installation.folder / "backup" / f"{user.rpartition(' ')[2]}.seed"
    seeds[LEAF] = installation.folder / "authority" / "leaf.seed"
    seeds[OUTER_RELAY] = installation.outside / "relay" / "nats.seed"
    for path in seeds.values():
        _once(path, nkeys.new_seed)
    public = {user: nkeys.UserKey(path.read_text(encoding="utf-8").strip()).public for user, path in seeds.items()}
    write_private(installation.place("nats") / "accounts.conf", accounts(public).encode())
    write_private(installation.outside / "nats" / "accounts.conf", leaf_accounts(public).encode())
    # nats-server wants this seed in its configuration; there it is a variable of an included file.
    leaf_seed = seeds[LEAF].read_text(encoding="utf-8").strip()
    write_private(installation.outside / "nats" / "leaf.conf", f"LEAF_SEED: {leaf_seed}\n".encode())


def _kustomization(root: Path, folders: Iterable[str], namespace: str) -> None:
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        # The workloads name them as they are.
        "generatorOptions": {"disableNameSuffixHash": True},
        "secretGenerator": [
            {"name": f"stream-{folder}", "files": sorted(f"{folder}/{each.name}" for each in _files(root / folder))}
            for folder in folders
        ],
    }
    write_private(root / "kustomization.yaml", yaml.safe_dump(content, sort_keys=False).encode())


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _once(path: Path, draw: Callable[[], str]) -> None:
    if not path.exists():
        write_private(path, f"{draw()}\n".encode())


def _aware(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now, datetime.UTC)


def _hosts(told: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in told:
        service, _, host = each.partition("=")
        if service not in SERVICES or not host:
            raise ConfigError(f"{each!r}: SERVICE=HOST is wanted, SERVICE one of {', '.join(SERVICES)}", param="--host")
        found.setdefault(service, []).append(host)
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Keys and certificates for STREAM in Kubernetes.")
    parser.add_argument("folder", type=Path, help="where they go; what is there is kept")
    parser.add_argument("--namespace", default="stream")
    parser.add_argument("--host", action="append", default=[], metavar="SERVICE=HOST", help="one more name or address")
    parser.add_argument("--renew", action="store_true", help="sign new certificates with the same authority")
    told = parser.parse_args()
    try:
        make(Installation(told.folder, told.namespace, _hosts(told.host)), now=time.time(), renew=told.renew)
    except ConfigError as error:
        sys.stderr.write(f"k8s-secrets: {error.message}\n")
        sys.exit(1)
    print(f"{told.folder}: keep it in a vault, and out of every repository. Next: kubectl apply -k {told.folder}")


if __name__ == "__main__":
    main()
