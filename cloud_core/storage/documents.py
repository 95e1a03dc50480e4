"""Typed values and per-message documents as bytes (MessagePack); no wire format of devices.

A document is a map from key number (dictionary table `ts_key`) to value. Objects and arrays keep
their JSON text in extension type 1, so that numbers beyond 64 bits survive.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.messages import JsonValue, Value

_JSON_EXT = 1


def _encode_hook(value: Any) -> msgspec.msgpack.Ext:  # Any: msgspec hands over what it cannot encode
    if isinstance(value, JsonValue):
        return msgspec.msgpack.Ext(_JSON_EXT, value.text.encode())
    raise TypeError(f"no storage form for {type(value).__name__}")


def _decode_hook(code: int, data: memoryview) -> JsonValue:
    if code != _JSON_EXT:
        raise ValueError(f"unknown extension type {code} in a stored value")
    return JsonValue(bytes(data).decode())


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_value_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_decode_hook)
_document_decoder: msgspec.msgpack.Decoder[dict[int, Any]] = msgspec.msgpack.Decoder(
    dict[int, Any], ext_hook=_decode_hook
)

encode_value = _encoder.encode
encode_document = _encoder.encode


def decode_value(data: bytes) -> Value:
    """The value that `encode_value` stored."""
    value: Value = _value_decoder.decode(data)
    return value


def decode_document(data: bytes) -> dict[int, Value]:
    """The map {key number: value} that `encode_document` stored."""
    return _document_decoder.decode(data)


def merge_documents(stored: bytes, added: bytes) -> bytes:
    """Both documents of one (device, ts); where a key is in both, the added value wins."""
    if stored == added:
        return stored  # the same message again
    return encode_document(decode_document(stored) | decode_document(added))
