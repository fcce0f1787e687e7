"""A small certificate authority for mutual TLS between the services of one machine.

`stream up`, `make k8s-secrets` and the tests use it; an institution may bring its own certificates (cert-manager, its
CA) in the same files.
"""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stream_core.errors import ConfigError
from stream_core.files import write_private

_LIFETIME = datetime.timedelta(days=825)
_RENEW_BEFORE = datetime.timedelta(days=30)
_AUTHORITY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "STREAM local authority")])


@dataclass(frozen=True)
class Authority:
    """Who signs the certificates of one installation."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, *, now: datetime.datetime, lifetime: datetime.timedelta = _LIFETIME) -> "Authority":
        """Make one with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_AUTHORITY, _AUTHORITY, key.public_key(), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def read(cls, certificate_pem: bytes, key_pem: bytes) -> "Authority":
        """Read one that was kept.

        Raises:
            ConfigError: the two are no certificate and its key.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the authority's files are not PEM ({type(error).__name__})") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError("the authority's key is not its certificate's")
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        """Its certificate: what everybody may know."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Its key: what nobody else may."""
        return _key_pem(self.key)

    def issue(self, name: str, hosts: Iterable[str], *, now: datetime.datetime) -> tuple[bytes, bytes]:
        """Sign a certificate for a service, as server and as client.

        Args:
            name: its common name.
            hosts: host names, wildcards and IP addresses at which it is called.
            now: aware.

        Returns:
            PEM of the certificate, and of its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = self.certificate.subject
        certificate = (
            _builder(subject, issuer, key.public_key(), now, _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def ensure_certificates(folder: Path, services: list[str], *, now: datetime.datetime) -> None:
    """Make `ca.pem` and, per service, `<service>.pem` and `<service>.key`, unless valid ones are there.

    The authority's private key is not kept: a new set replaces all of it at once.

    Args:
        folder: made if it is not there (mode 0700).
        services: names; each becomes the certificate's common name.
        now: aware.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if all((folder / f"{name}.{suffix}").exists() for name in services for suffix in ("pem", "key")):
        ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        if ca.not_valid_after_utc - _RENEW_BEFORE > now:
            return
    authority = Authority.new(now=now)
    for service in services:
        certificate, key = authority.issue(service, [service, "localhost", "127.0.0.1"], now=now)
        write_private(folder / f"{service}.key", key)
        write_private(folder / f"{service}.pem", certificate)
    write_private(folder / "ca.pem", authority.pem)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + lifetime)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
