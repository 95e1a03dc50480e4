"""Bodies of the device transports to messages and back: the one place that knows their field names.

The provision messages stand here. Telemetry and attributes (`telemetry_json`) and the stored form of
values (`values`) have files of their own and are offered here as well, so that others import this alone.

Source: wire-contract.md sections 1.2 and 1.6.
"""

from __future__ import annotations

import math
from enum import Enum, auto

import msgspec

from shared import provision_protobuf
from shared.credentials import (
    AccessToken,
    Credentials,
    CredentialsType,
    MqttBasic,
    X509Certificate,
    credentials_type,
    strip_pem,
)
from shared.errors import (
    FAILURE_TEXT,
    MalformedRequest,
    PlatformError,
    ProvisionRefused,
    ProvisionStatus,
    status_of,
)
from shared.json_bodies import MAX_BODY_BYTES, STRICT_FAULTS, check_size, decode_leniently
from shared.lenient_json import NumberText
from shared.messages import ProvisionRequest, ProvisionResponse
from shared.telemetry_json import MAX_VALUES, parse_attributes, parse_telemetry
from shared.values import (
    BadKeySink,
    decode_document,
    decode_value,
    encode_document,
    encode_value,
    value_to_json,
    value_to_text,
)

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_VALUES",
    "BadKeySink",
    "ProvisionEncoding",
    "decode_document",
    "decode_provision",
    "decode_value",
    "encode_document",
    "encode_value",
    "parse_attributes",
    "parse_provision_request",
    "parse_telemetry",
    "redacted_provision_request",
    "refusal_response",
    "render_provision_response",
    "value_to_json",
    "value_to_text",
]

X509_CSR = "X509_CSR"  # `credentialsType` of a request alone: the answer is of type X509_CERTIFICATE
_MAX_LOGGED_CHARS = 255

_encode = msgspec.json.Encoder().encode


# --- provisioning: request -----------------------------------------------------------------------


class ProvisionEncoding(Enum):
    """How a provision request was written, and so how its answer is."""

    JSON = auto()
    """The agreed form."""
    PROTOBUF = auto()
    """ThingsBoard's `ProvisionDeviceRequestMsg`."""


class _ProvisionBody(msgspec.Struct):
    """The members of a request under their wire names; `hash` is a certificate despite its name."""

    provisionDeviceKey: str | None = None
    provisionDeviceSecret: str | None = None
    deviceName: str | None = None
    credentialsType: str | None = None
    token: str | None = None
    clientId: str | None = None
    username: str | None = None
    password: str | None = None
    hash: str | None = None
    csr: str | None = None
    gateway: bool | None = None


_decode_provision_body = msgspec.json.Decoder(_ProvisionBody).decode
_TEXT_MEMBERS = tuple(name for name in _ProvisionBody.__struct_fields__ if name != "gateway")


def parse_provision_request(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> ProvisionRequest:
    """The request in a JSON body; values are as given, neither trimmed nor checked.

    Null is an absent member; numbers and booleans in place of strings stand for their text; unknown
    members are ignored.

    Raises: MalformedRequest, whose detail tells the fix and quotes no value; RequestTooLarge.
    """
    check_size(body, max_bytes)
    try:
        members = _decode_provision_body(body)
    except STRICT_FAULTS:
        members = _lenient_provision_body(body)
    return ProvisionRequest(
        provision_key=_required(members.provisionDeviceKey, "provisionDeviceKey"),
        provision_secret=_required(members.provisionDeviceSecret, "provisionDeviceSecret"),
        device_name=members.deviceName or "",
        credentials_type=_requested_type(members.credentialsType),
        csr=_requested_csr(members),
        token=members.token or "",
        client_id=members.clientId or "",
        username=members.username or "",
        password=members.password or "",
        certificate=members.hash or "",
        is_gateway=members.gateway or False,
    )


def decode_provision(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> tuple[ProvisionRequest, ProvisionEncoding]:
    """The request in a JSON or protobuf body, and which it was; for MQTT and CoAP.

    Protobuf is considered only if the body is no JSON object even by the lenient rules and carries
    the protobuf fields of a key and a secret.

    Raises: as `parse_provision_request`, with the fault of the JSON.
    """
    try:
        return parse_provision_request(body, max_bytes=max_bytes), ProvisionEncoding.JSON
    except MalformedRequest:
        request = provision_protobuf.read_request(body)
        if request is None or _is_json_object(body):
            raise
        return request, ProvisionEncoding.PROTOBUF


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(decode_leniently(body), dict)
    except MalformedRequest:
        return False


def _lenient_provision_body(body: bytes) -> _ProvisionBody:
    document = decode_leniently(body, number=NumberText)
    if not isinstance(document, dict):
        raise MalformedRequest("The body must be a JSON object with provisionDeviceKey and provisionDeviceSecret.")
    members = _ProvisionBody(gateway=_flag(document.get("gateway"), "gateway"))
    for name in _TEXT_MEMBERS:
        setattr(members, name, _text_or_none(document.get(name), name))
    return members


def _text_or_none(value: object, name: str) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case NumberText(text):
            return text
        case _:
            raise MalformedRequest(f"{name} must be a string, not an object or array.")


def _flag(value: object, name: str) -> bool:
    """ThingsBoard's reading of a boolean: of all texts only "true" in any case is one."""
    text = _text_or_none(value, name)
    return text is not None and text.lower() == "true"


_WHERE = {"csr": "add a PKCS#10 request as PEM, or as base64 of its DER"}


def _required(value: str | None, name: str) -> str:
    if value is None:
        raise MalformedRequest(f"{name} is missing; {_WHERE.get(name, 'add it as shown in the device profile')}.")
    return value


def _requested_type(name: str | None) -> CredentialsType:
    if not name:
        return CredentialsType.ACCESS_TOKEN
    if name == X509_CSR:
        return CredentialsType.X509_CERTIFICATE
    try:
        return CredentialsType(name)
    except ValueError:
        raise MalformedRequest(f"credentialsType must be one of {', '.join((*CredentialsType, X509_CSR))}.") from None


def _requested_csr(members: _ProvisionBody) -> str:
    """Of a request of another type it is a member like any unknown one."""
    if members.credentialsType != X509_CSR:
        return ""
    csr = _required(members.csr, "csr")
    if not csr.strip():
        raise MalformedRequest("csr is empty; send a PKCS#10 request as PEM, or as base64 of its DER.")
    return csr


def redacted_provision_request(request: ProvisionRequest) -> dict[str, object]:
    """What of a request may be logged; secrets and credentials only by the names of their members.

    `present` lists the secret and the credential members that were not empty.
    """
    present = {
        "provisionDeviceSecret": request.provision_secret,
        "token": request.token,
        "clientId": request.client_id,
        "username": request.username,
        "password": request.password,
        "hash": request.certificate,
        "csr": request.csr,
    }
    return {
        "provisionDeviceKey": request.provision_key[:_MAX_LOGGED_CHARS],
        "deviceName": request.device_name[:_MAX_LOGGED_CHARS],
        "credentialsType": X509_CSR if request.csr else request.credentials_type.value,
        "gateway": request.is_gateway,
        "present": [name for name, value in present.items() if value],
    }


# --- provisioning: response ----------------------------------------------------------------------


def refusal_response(error: PlatformError, *, seed_texts: bool = False) -> ProvisionResponse:
    """The response that carries `error`; `seed_texts` forces the specification's wording in `errorMsg`."""
    error_msg = FAILURE_TEXT
    if isinstance(error, ProvisionRefused):
        error_msg = error.seed_text if seed_texts else error.error_msg
    return ProvisionResponse(
        status=status_of(error),
        error_msg=error_msg,
        reason=error.reason.value,
        ref=error.ref or "",
        retry_after_s=error.retry_after_s,
    )


def render_provision_response(
    response: ProvisionResponse, encoding: ProvisionEncoding = ProvisionEncoding.JSON
) -> bytes:
    """The body of the answer; `retryAfter` is in whole seconds, rounded up.

    Protobuf has no member for anything but status and credentials. `certificateChain` (PEM: the certificate that the
    core's CA has issued, then its issuers) answers `X509_CSR` alone.
    """
    if encoding is ProvisionEncoding.PROTOBUF:
        return _render_protobuf(response)
    members: dict[str, object] = {}
    if response.credentials is not None:
        members["credentialsValue"] = _credentials_value(response.credentials)
        members["credentialsType"] = credentials_type(response.credentials)
    if response.status is not ProvisionStatus.SUCCESS:
        members["errorMsg"] = response.error_msg or FAILURE_TEXT  # clients index it unconditionally
    members["status"] = response.status
    additions = {
        "certificateChain": response.certificate_chain,
        "deviceName": response.device_name,
        "warning": response.warning,
        "reason": response.reason,
        "ref": response.ref,
    }
    members.update((name, text) for name, text in additions.items() if text)
    if response.retry_after_s is not None:
        members["retryAfter"] = math.ceil(response.retry_after_s)
    return _encode(members)


def _credentials_value(credentials: Credentials) -> str | dict[str, str]:
    match credentials:
        case AccessToken(token):
            return token
        case MqttBasic(client_id, username, password):
            return {"clientId": client_id, "userName": username, "password": password}
        case X509Certificate(certificate):
            return strip_pem(certificate)


def _render_protobuf(response: ProvisionResponse) -> bytes:
    if response.credentials is None:
        return provision_protobuf.render_response(response.status, None, "")
    value = _credentials_value(response.credentials)
    return provision_protobuf.render_response(
        response.status,
        credentials_type(response.credentials),
        value if isinstance(value, str) else _encode(value).decode(),
    )
