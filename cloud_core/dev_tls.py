"""TLS for development: a CA of this machine's own, and a server certificate by it.

Both lie in the data directory and are kept over restarts, so that clients need the CA once. Whoever trusts this CA
trusts whoever can read that directory: it is for trying things out.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_core.secrets_file import write_private
from shared import certificates

CA_DAYS = 3_650
SERVER_DAYS = 365
RENEWED_BEFORE = timedelta(days=30)
WILDCARDS = ("", "0.0.0.0", "::")
MAX_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class DevelopmentFiles:
    """PEM files; `authority` is what clients are given to trust."""

    authority: Path
    certificate: Path
    private_key: Path


@dataclass(frozen=True, slots=True)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def prepare(folder: Path, binds: Collection[str]) -> DevelopmentFiles:
    """Makes what is missing in `folder`, too old, or does not name an address we are reached at.

    Raises: OSError; ValueError with a sentence for the user where a file there is damaged.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = DevelopmentFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    now = datetime.now(UTC)
    try:
        issuer, is_new = _issuer(files.authority, folder / "ca.key", now)
        names = _names(binds)
        if is_new or not _is_good(files, issuer, names, now):
            _make_server(files, issuer, names, now)
    except (ValueError, TypeError) as error:
        raise ValueError(f"The development certificates in {folder} are damaged; remove that directory.") from error
    return files


def _issuer(authority: Path, key_file: Path, now: datetime) -> tuple[_Issuer, bool]:
    """The CA, and whether it is new."""
    if authority.exists() and key_file.exists():
        certificate = x509.load_pem_x509_certificate(authority.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("the CA's key is another one's")
        if certificate.not_valid_after_utc - RENEWED_BEFORE > now:
            return _Issuer(certificate, key), False
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Muster development CA of {socket.gethostname()}"[:64])])
    certificate = (
        _builder(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(key_file, _key_pem(key))
    authority.write_text(certificates.pem(certificate))
    return _Issuer(certificate, key), True


def _is_good(files: DevelopmentFiles, issuer: _Issuer, names: list[x509.GeneralName], now: datetime) -> bool:
    """Whether the server's certificate may stay."""
    if not (files.certificate.exists() and files.private_key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_lasting = certificate.not_valid_after_utc - RENEWED_BEFORE > now
    return is_lasting and set(names) <= set(named) and _fits(certificate, files.private_key, issuer)


def _fits(certificate: x509.Certificate, key_file: Path, issuer: _Issuer) -> bool:
    """Whether its key is there, and its CA the present one: a start may have been cut off between the files."""
    try:
        certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError):
        return False
    key = load_pem_private_key(key_file.read_bytes(), None)
    return key.public_key() == certificate.public_key()


def _make_server(files: DevelopmentFiles, issuer: _Issuer, names: list[x509.GeneralName], now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    common_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, socket.gethostname()[:MAX_COMMON_NAME])])
    certificate = (
        _builder(common_name, issuer.certificate.subject, key, now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.certificate.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(issuer.key, hashes.SHA256())
    )
    write_private(files.private_key, _key_pem(key))
    files.certificate.write_text(certificates.pem(certificate))


def _names(binds: Collection[str]) -> list[x509.GeneralName]:
    """What we are called: on this machine, in its network, and at the addresses that we listen on."""
    texts = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *(one for one in binds if one not in WILDCARDS)]
    names: list[x509.GeneralName] = []
    for text in dict.fromkeys(texts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return names


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clients' clocks
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=is_ca, crl_sign=is_ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
