"""Provision request and response in protobuf, as far as these two messages need it.

Only for peers whose bytes are no JSON. Field numbers stand here and nowhere else.

Source: wire-contract.md section 1.2 (ThingsBoard `transport.proto`).
"""

from __future__ import annotations

from collections.abc import Iterator

from shared.credentials import CredentialsType
from shared.errors import MalformedRequest, ProvisionStatus
from shared.messages import ProvisionRequest

_CREDENTIALS_TYPES = (
    CredentialsType.ACCESS_TOKEN,
    CredentialsType.X509_CERTIFICATE,
    CredentialsType.MQTT_BASIC,
)
_STATUS_NUMBERS = {ProvisionStatus.SUCCESS: 1, ProvisionStatus.NOT_FOUND: 2, ProvisionStatus.FAILURE: 3}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10

_Fields = dict[int, int | bytes]  # field number -> value; the last of several wins


def read_request(body: bytes) -> ProvisionRequest | None:
    """The request in `body`; None unless it is well-formed and carries a key and a secret.

    Fields: 1 deviceName, 2 credentialsType, 3 {1 key, 2 secret},
    4 {1 {1 token}, 2 {1 hash}, 3 {1 clientId, 2 userName, 3 password}}, 5 gateway.

    Raises: MalformedRequest for a credentials type that cannot be provisioned.
    """
    try:
        fields = _read_message(body)
        keys = _message(fields, 3)
        brought = _message(fields, 4)
        basic = _message(brought, 3)
        if not _text(keys, 1) or not _text(keys, 2):
            return None
        type_number = _number(fields, 2)
        return ProvisionRequest(
            provision_key=_text(keys, 1),
            provision_secret=_text(keys, 2),
            device_name=_text(fields, 1),
            credentials_type=_credentials_type(type_number),
            token=_text(_message(brought, 1), 1),
            certificate=_text(_message(brought, 2), 1),
            client_id=_text(basic, 1),
            username=_text(basic, 2),
            password=_text(basic, 3),
            is_gateway=_number(fields, 5) != 0,
        )
    except ValueError:
        return None


def render_response(status: ProvisionStatus, credentials_type: CredentialsType | None, credentials_value: str) -> bytes:
    """Fields: 1 status, 2 credentialsType, 3 credentialsValue; zero and empty ones are left out."""
    written = _tag(1, _VARINT) + _varint(_STATUS_NUMBERS[status])
    if credentials_type is not None and (number := _CREDENTIALS_TYPES.index(credentials_type)):
        written += _tag(2, _VARINT) + _varint(number)
    if credentials_value:
        value = credentials_value.encode()
        written += _tag(3, _BYTES) + _varint(len(value)) + value
    return written


def _credentials_type(number: int) -> CredentialsType:
    if number >= len(_CREDENTIALS_TYPES):
        raise MalformedRequest("credentialsType must be 0 (token), 1 (X.509) or 2 (MQTT basic).")
    return _CREDENTIALS_TYPES[number]


def _read_message(body: bytes) -> _Fields:
    """Raises: ValueError if `body` is no sequence of fields."""
    return dict(_read_fields(body))


def _read_fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        field, wire_type = tag >> 3, tag & 7
        if field == 0:
            raise ValueError("field number 0")
        if wire_type == _VARINT:
            number, at = _read_varint(body, at)
            yield field, number
            continue
        if wire_type == _BYTES:
            size, at = _read_varint(body, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError("a wire type that these messages do not use")
        if at + size > len(body):
            raise ValueError("a field beyond the end")
        yield field, body[at : at + size]
        at += size


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and the position behind it."""
    number = 0
    for index, byte in enumerate(body[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    raise ValueError("unterminated varint")


def _message(fields: _Fields, field: int) -> _Fields:
    value = fields.get(field, b"")
    if not isinstance(value, bytes):
        raise ValueError("a number where a message belongs")
    return _read_message(value)


def _text(fields: _Fields, field: int) -> str:
    value = fields.get(field, b"")
    if not isinstance(value, bytes):
        raise ValueError("a number where a string belongs")
    return value.decode()


def _number(fields: _Fields, field: int) -> int:
    value = fields.get(field, 0)
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value


def _tag(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
