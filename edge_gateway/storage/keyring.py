"""Where the gateway's own secrets lie: what works, and what was proposed to the core without an answer yet."""

from __future__ import annotations

from pathlib import Path

from edge_gateway.model import Credentials
from edge_gateway.storage.credentials import CredentialsFolder


class FileKeyring:
    """`core.agent.Keyring` in `folder`, each change on disk when the call returns. `name` is the gateway's, for the
    subject of its certificate. All methods raise FileUnusable."""

    def __init__(self, folder: Path, *, name: str) -> None:
        self._name = name
        self._saved = CredentialsFolder(folder)
        self._proposed = CredentialsFolder(folder / "proposed")

    def credentials(self) -> Credentials | None:
        return self._saved.load()

    def proposed(self) -> Credentials | None:
        return self._proposed.load()

    def propose(self, credentials: Credentials) -> None:
        self._proposed.save(credentials)

    def save(self, credentials: Credentials) -> None:
        self._saved.save(credentials)
        self._proposed.forget()

    def discard(self) -> None:
        self._saved.forget()
        self._proposed.forget()

    def certificate_pem(self) -> str:
        pair = self._saved.load_key_pair()
        if pair is None:
            pair = make_key_pair(self._name)
            self._saved.save_key_pair(*pair)
        return pair[1].decode()

    def certificate_files(self) -> tuple[str, str]:
        """Paths of certificate and key; empty when there are none."""
        if self._saved.load_key_pair() is None:
            return "", ""
        return str(self._saved.certificate), str(self._saved.private_key)


def make_key_pair(name: str) -> tuple[bytes, bytes]:
    """A P-256 key and a self-signed certificate for it, valid for twenty years, in PEM: the core pins it."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=20 * 365))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded_key, certificate.public_bytes(serialization.Encoding.PEM)
