"""Signing requests of devices that want a certificate: one key for all of a process, because keys cost time."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Signing:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.key_pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self._requests: dict[str, str] = {}

    def request(self, name: str) -> str:
        """PEM; the same each time, as a device's request must be."""
        known = self._requests.get(name)
        if known is None:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
            built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
            known = self._requests[name] = built.public_bytes(serialization.Encoding.PEM).decode()
        return known
