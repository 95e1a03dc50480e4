"""The certificate part of the demonstration: a device with a factory certificate, and one that has nothing but a key.

Keys and certificates are made as a factory and a device would make them, and never leave the temporary folder.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """PEM files of a device: its certificate with the issuers behind it, and its key (0600)."""

    certificate: Path
    private_key: Path


class Factory:
    """A factory's own CA, which the core knows by its certificate alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _signed(
            _builder(_name("Demo Factory"), _name("Demo Factory"), self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True),
            self._key,
        )

    @property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def device(self, common_name: str) -> DeviceFiles:
        """A device as it leaves the line."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _signed(
            _builder(_name(common_name), self._certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False),
            self._key,
        )
        chain = leaf.public_bytes(serialization.Encoding.PEM).decode() + self.pem
        return keep(self._folder, common_name, key, chain)


def key_and_request(common_name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A fresh key, and the certificate signing request (PEM) for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name)).sign(key, hashes.SHA256())
    return key, request.public_bytes(serialization.Encoding.PEM).decode()


def keep(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, chain_pem: str) -> DeviceFiles:
    """Writes both files; the key for its owner only."""
    files = DeviceFiles(folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_text(chain_pem, encoding="ascii")
    files.private_key.touch(mode=0o600)
    files.private_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return files


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 30 * DAY)
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(key, hashes.SHA256())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
