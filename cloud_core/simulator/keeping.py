"""The file that keeps what devices have got, so that a later run comes back with it: mode 0600, a JSON line each.

Several processes add to it; a line is written by one call, and the last of a name counts.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from shared.credentials import AccessToken, Credentials, CredentialsType, MqttBasic, X509Certificate

FORMAT = "muster-simulator-1"
MAX_LINE_BYTES = 65_536
_FLUSH_BYTES = 32_768

Kept = dict[str, tuple[Credentials, str]]
"""By name: credentials, and the PEM of certificate and key where there is one."""


class KeepingError(Exception):
    """The file cannot be used; `str()` is a sentence with the fix."""


class _Head(msgspec.Struct):
    format: str


class _Line(msgspec.Struct, omit_defaults=True):
    name: str
    type: str
    parts: list[str]
    identity: str = ""


def load(path: Path) -> Kept:
    """What is kept; nothing where there is no file yet. Raises: KeepingError."""
    kept: Kept = {}
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise KeepingError(f"Others may read {path}, which holds credentials: chmod 600 {path}")
            head = file.readline(MAX_LINE_BYTES)
            if head and msgspec.json.decode(head, type=_Head).format != FORMAT:
                raise KeepingError(f"{path} is of another version; name another file.")
            while line := file.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n"):
                    break  # cut off in the middle of a write
                one = msgspec.json.decode(line, type=_Line)
                kept[one.name] = (_credentials(one), one.identity)
    except FileNotFoundError:
        return kept
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise KeepingError(f"{path} is no file of the simulator; name another one.") from error
    except OSError as error:
        raise KeepingError(f"{path} cannot be read: {error.strerror}.") from error
    return kept


def prepare(path: Path) -> None:
    """Makes the file where there is none. Raises: KeepingError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeepingError(f"{path} is no file.")
            if not status.st_size:
                os.write(descriptor, msgspec.json.encode(_Head(FORMAT)) + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeepingError(f"{path} cannot be written: {error.strerror}.") from error


class Keeping:
    """Adds to a prepared file. Raises: OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = bytearray()

    def keep(self, name: str, credentials: Credentials, identity_pem: str) -> None:
        self._lines += msgspec.json.encode(_line(name, credentials, identity_pem)) + b"\n"
        if len(self._lines) >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Whole lines by one call, between which other processes add theirs. Raises: OSError."""
        while self._lines:
            written = os.write(self._descriptor, self._lines)
            del self._lines[:written]

    def close(self) -> None:
        self.flush()
        os.close(self._descriptor)


def _line(name: str, credentials: Credentials, identity_pem: str) -> _Line:
    match credentials:
        case AccessToken(token):
            return _Line(name, CredentialsType.ACCESS_TOKEN, [token])
        case MqttBasic(client_id, username, password):
            return _Line(name, CredentialsType.MQTT_BASIC, [client_id, username, password])
        case X509Certificate(certificate):
            return _Line(name, CredentialsType.X509_CERTIFICATE, [certificate], identity_pem)


def _credentials(line: _Line) -> Credentials:
    """Raises: ValueError, TypeError for a line that is none of ours."""
    kinds = {
        CredentialsType.ACCESS_TOKEN: AccessToken,
        CredentialsType.MQTT_BASIC: MqttBasic,
        CredentialsType.X509_CERTIFICATE: X509Certificate,
    }
    made: Credentials = kinds[CredentialsType(line.type)](*line.parts)
    return made
