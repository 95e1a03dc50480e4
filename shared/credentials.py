"""Device credentials: the three kinds, their identifiers and the rules a brought one must keep.

Source: wire-contract.md sections 1.7 and 1.9 (ThingsBoard `DeviceCredentialsServiceImpl`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from shared.errors import InvalidCredentials

MAX_PART_CHARS = 1024  # of a token, client id, user name or password; ThingsBoard: column limit
MAX_CERTIFICATE_CHARS = 16_384

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PEM_NOISE = re.compile(r"-----(?:BEGIN|END) CERTIFICATE-----|\r|\n")


class CredentialsType(StrEnum):
    """Wire names of the credential kinds; X509_CSR (`payloads.X509_CSR`) and chain provisioning add no stored kind."""

    ACCESS_TOKEN = "ACCESS_TOKEN"
    MQTT_BASIC = "MQTT_BASIC"
    X509_CERTIFICATE = "X509_CERTIFICATE"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token; it is its own identifier."""

    token: str

    def __repr__(self) -> str:
        return "AccessToken(…)"


@dataclass(frozen=True, slots=True)
class MqttBasic:
    """MQTT client id, user name and password; an empty part matches anything at login."""

    client_id: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"MqttBasic(client_id={self.client_id!r}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class X509Certificate:
    """A certificate text (base64 of the DER, no markers) or an opaque fingerprint."""

    certificate: str

    def __repr__(self) -> str:
        return "X509Certificate(…)"


type_of_credentials = {
    AccessToken: CredentialsType.ACCESS_TOKEN,
    MqttBasic: CredentialsType.MQTT_BASIC,
    X509Certificate: CredentialsType.X509_CERTIFICATE,
}

Credentials = AccessToken | MqttBasic | X509Certificate


def credentials_type(credentials: Credentials) -> CredentialsType:
    """Wire name of the kind."""
    return type_of_credentials[type(credentials)]


def strip_pem(text: str) -> str:
    """`text` without PEM markers and line breaks, as ThingsBoard does before any hashing."""
    if "\n" not in text and "\r" not in text and "-----" not in text:
        return text  # as it is stored, and as most come: several times for each login
    return _PEM_NOISE.sub("", text)


def sha3_id(text: str) -> str:
    """SHA3-256 (NIST) of the PEM-stripped text, lower-case hex.

    `sha3_id("testHash")` is `57f6600424d6553263f1f32e0117012894a36fbf07e3e9c3c556272f86b7d985`.
    """
    return hashlib.sha3_256(strip_pem(text).encode()).hexdigest()


def mqtt_basic_id(client_id: str, username: str) -> str:
    """Identifier of an MQTT_BASIC credential; a user name alone is its own identifier."""
    if not client_id:
        return username
    return sha3_id("|".join(part for part in (client_id, username) if part))


def credentials_id(credentials: Credentials) -> str:
    """`credentialsId`: the look-up key, unique over all tenants and kinds."""
    match credentials:
        case AccessToken(token):
            return token
        case MqttBasic(client_id, username, _):
            return mqtt_basic_id(client_id, username)
        case X509Certificate(certificate):
            return sha3_id(certificate)


def check_credentials(credentials: Credentials) -> Credentials:
    """`credentials` in their stored form.

    Raises: InvalidCredentials with ThingsBoard's message where it has one.
    """
    match credentials:
        case AccessToken(token):
            _check_part("Access token", token)
            if not token.strip():
                raise InvalidCredentials("Device credentials id should be specified!")
        case MqttBasic(client_id, username, password):
            _check_part("Mqtt client id", client_id)
            _check_part("Mqtt user name", username)
            _check_part("Mqtt password", password)
            if not client_id and not username:
                raise InvalidCredentials("Both mqtt client id and user name are empty!")
            if client_id and password and not username:
                raise InvalidCredentials("Password cannot be specified along with client id")
        case X509Certificate(certificate):
            text = strip_pem(certificate).strip()
            if not text:
                raise InvalidCredentials("Certificate should be specified!")
            if len(text) > MAX_CERTIFICATE_CHARS:
                raise InvalidCredentials(f"Certificate is longer than {MAX_CERTIFICATE_CHARS} characters")
            _check_part("Certificate", text, limit=MAX_CERTIFICATE_CHARS)
            return X509Certificate(text)
    return credentials


def _check_part(label: str, value: str, *, limit: int = MAX_PART_CHARS) -> None:
    if _CONTROL.search(value):
        raise InvalidCredentials(f"{label} must not contain control characters!")
    if len(value) > limit:
        raise InvalidCredentials(f"{label} is longer than {limit} characters")
