"""`make k8s-secrets`: everything is made once, privately, and no service gets what another one needs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from stream_cli.cluster_secrets import Installation, make
from stream_core.errors import ConfigError

NOW = time.time()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One installation."""
    installation = Installation(tmp_path_factory.mktemp("made"), hosts={"relay": ["relay.example", "192.0.2.7"]})
    make(installation, now=NOW)
    return installation


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_owner_can_read(made):
    """Mode 0600 in folders of 0700."""
    for path in made.folder.rglob("*"):
        if not path.name.endswith(".lock"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_second_run_changes_nothing(made):
    """The folder is the installation's identity: what is there is kept."""
    before = contents(made.folder)
    make(made, now=NOW + 1)
    assert contents(made.folder) == before


def test_renewed_certificates_keep_everything_else(tmp_path):
    """New certificates of the same authorities: running services trust them; keys and users stay."""
    made = Installation(tmp_path)
    make(made, now=NOW)
    before = contents(tmp_path)
    make(Installation(tmp_path, hosts={"nats": ["leaf.example"]}), now=NOW, renew=True)
    after = contents(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(name.endswith(("tls.crt", "tls.key", "route.crt", "route.key")) for name in changed)
    assert "leaf.example" in names(made.place("nats") / "tls.crt")


def names(path: Path) -> set[str]:
    """Host names of a certificate."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))}


def test_certificates_name_what_is_called(made):
    """A service's short and long names, the hosts that were asked for, and the broker's nodes."""
    assert {"relay", "relay.stream.svc", "relay.example", "192.0.2.7"} <= names(made.place("relay") / "tls.crt")
    assert {"hpc-dispatch", "hpc-dispatch.stream.svc.cluster.local"} <= names(made.place("hpc_dispatch") / "tls.crt")
    assert {"nats", "*.nats-nodes"} <= names(made.place("nats") / "route.crt")


@pytest.mark.parametrize("file", ["nats.seed", "tls.key", "ticket.key", "lease.key", "batch.key", "store.key"])
def test_no_secret_is_in_two_places(made, file):
    """Each private file's content is in one folder alone."""
    holders: dict[bytes, list[Path]] = {}
    for path in made.folder.rglob(file):
        holders.setdefault(path.read_bytes(), []).append(path)
    assert holders
    assert all(len(paths) == 1 for paths in holders.values())


def test_the_outside_holds_nothing_of_the_inside(made):
    """What a machine outside can lose: no key or seed of a service, no certificate of the inside's authority."""
    outside = {content for name, content in contents(made.folder / "outside").items() if "ca" not in name}
    inside = {content for name, content in contents(made.folder).items() if not name.startswith("outside/")}
    assert {content for content in outside & inside if b"PUBLIC KEY" not in content} == set()
    authority = x509.load_pem_x509_certificate((made.folder / "authority" / "inside.pem").read_bytes())
    for path in made.folder.glob("outside/*/tls.crt"):
        with pytest.raises(Exception):  # noqa: B017, PT011  (cryptography raises InvalidSignature without a message)
            x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority)


def test_what_stays_with_the_operator_is_in_no_secret(made):
    """Neither the authorities' keys nor the admin's API key in clear."""
    secrets = yaml.safe_load((made.folder / "kustomization.yaml").read_text())["secretGenerator"]
    files = [file for secret in secrets for file in secret["files"]]
    assert not [file for file in files if file.startswith(("authority/", "admin", "outside/"))]
    key = (made.folder / "admin.key").read_bytes().strip()
    assert not [file for file in files if key in (made.folder / file).read_bytes()]


def test_files_of_the_operators_go_along(tmp_path):
    """A provider's key that was put into a service's folder is in that service's Secret."""
    made = Installation(tmp_path)
    make(made, now=NOW)
    (made.place("gateway") / "cloud.key").write_text("x")
    make(made, now=NOW)
    secrets = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())["secretGenerator"]
    [gateway] = [secret for secret in secrets if secret["name"] == "stream-gateway"]
    assert "gateway/cloud.key" in gateway["files"]


def test_a_wrong_authority_is_named(tmp_path):
    """A key that is not its certificate's is refused instead of signing what nobody would trust."""
    make(Installation(tmp_path), now=NOW)
    other = tmp_path / "authority" / "routes.key"
    (tmp_path / "authority" / "inside.key").write_bytes(other.read_bytes())
    with pytest.raises(ConfigError, match="not its certificate's"):
        make(Installation(tmp_path), now=NOW, renew=True)


@pytest.mark.process
def test_the_command(tmp_path):
    """It says where the folder is, and refuses a host of nobody."""
    command = [sys.executable, "-m", "stream_cli.cluster_secrets", str(tmp_path / "new")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"kubectl apply -k {tmp_path}" in told.stdout
    told = subprocess.run([*command, "--host", "nobody=x"], capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "SERVICE=HOST" in told.stderr
