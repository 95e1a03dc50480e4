"""What the gateway is known by, in small files of its data directory, readable by its user alone.

`credentials.json` holds what it logs in with, `identity.json` the serial that was made up where the machine has none,
`client-key.pem` and `client-certificate.pem` the pair of an X.509 login.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_gateway.model import Credentials
from edge_gateway.storage.files import read_private, write_private

CREDENTIALS = "credentials.json"
IDENTITY = "identity.json"
PRIVATE_KEY = "client-key.pem"
CERTIFICATE = "client-certificate.pem"
SERIAL_BYTES = 6

KINDS = ("ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE")

T = TypeVar("T")


class FileUnusable(Exception):
    """A file cannot be read, written or understood; `str()` is one sentence that names it and the fix."""


class _Stored(msgspec.Struct, omit_defaults=True):
    kind: str
    token: str = ""
    client_id: str = ""
    username: str = ""
    password: str = ""


class _Identity(msgspec.Struct):
    serial: str


class CredentialsFolder:
    """The files in `folder`. All methods block for the time of an fsync; all raise FileUnusable."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Credentials | None:
        """None when there are none yet."""
        path = self._folder / CREDENTIALS
        fix = "restore it from a backup, or remove it so that the gateway provisions itself again"
        stored = self._read(path, _Stored, fix)
        if stored is None:
            return None
        needed = {"ACCESS_TOKEN": stored.token, "MQTT_BASIC": stored.client_id or stored.username}
        if stored.kind not in KINDS or not needed.get(stored.kind, "x"):
            raise FileUnusable(f"{path} holds no complete credentials: {fix}.")
        return Credentials(
            kind=stored.kind,
            token=stored.token,
            client_id=stored.client_id,
            username=stored.username,
            password=stored.password,
        )

    def save(self, credentials: Credentials) -> None:
        c = credentials
        self._write(
            CREDENTIALS, msgspec.json.encode(_Stored(c.kind, c.token, c.client_id, c.username, c.password)) + b"\n"
        )

    def forget(self) -> None:
        """Removes the credentials; the rest stays."""
        try:
            (self._folder / CREDENTIALS).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self._folder / CREDENTIALS, error) from error

    def serial(self) -> str:
        """A serial that stays the same, made up at the first call."""
        path = self._folder / IDENTITY
        fix = 'write {"serial": "..."} with the gateway\'s serial into it, or remove it to get another one'
        identity = self._read(path, _Identity, fix)
        if identity is not None:
            if not identity.serial:
                raise FileUnusable(f"{path} holds an empty serial: {fix}.")
            return identity.serial
        serial = secrets.token_hex(SERIAL_BYTES)
        self._write(IDENTITY, msgspec.json.encode(_Identity(serial)) + b"\n")
        return serial

    @property
    def private_key(self) -> Path:
        return self._folder / PRIVATE_KEY

    @property
    def certificate(self) -> Path:
        return self._folder / CERTIFICATE

    def save_key_pair(self, private_key: bytes, certificate: bytes) -> None:
        """PEM. The certificate comes last: where it is, its key is there too."""
        self._write(PRIVATE_KEY, private_key)
        self._write(CERTIFICATE, certificate)

    def load_key_pair(self) -> tuple[bytes, bytes] | None:
        """Private key and certificate in PEM; None when there is no whole pair."""
        key, certificate = self._bytes(self.private_key), self._bytes(self.certificate)
        if key is None or certificate is None:
            return None
        for path, content, what in (
            (self.private_key, key, b"PRIVATE KEY-----"),
            (self.certificate, certificate, b"CERTIFICATE-----"),
        ):
            if b"-----BEGIN " not in content or what not in content:
                raise FileUnusable(
                    f"{path} is no PEM file: restore it from a backup, or remove it so that a new pair is made."
                )
        return key, certificate

    def _read(self, path: Path, kind: type[T], fix: str) -> T | None:
        content = self._bytes(path)
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The decoder's own text is left out: it may quote what is in the file.
            raise FileUnusable(f"{path} is damaged: {fix}.") from None

    @staticmethod
    def _bytes(path: Path) -> bytes | None:
        try:
            return read_private(path)
        except OSError as error:
            raise FileUnusable(
                f"{path} cannot be read ({error.strerror}): make it readable for the user that runs edge-gateway."
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        try:
            write_private(path, content)
        except OSError as error:
            raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FileUnusable:
    return FileUnusable(
        f"{path} cannot be written ({error.strerror}): make the folder {path.parent} writable for the user that runs "
        f"edge-gateway, or make room on its disk."
    )
