"""Bodies of the device transports to decoded JSON: strictly first, then by the lenient rules.

Decoded JSON is dict, list, str, bool, None, int of any size, float, or `NumberText` where a float
would not tell how the number was written.

Source: wire-contract.md section 7.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shared import lenient_json
from shared.errors import MalformedRequest, RequestTooLarge
from shared.lenient_json import NumberText

MAX_BODY_BYTES = 65_536  # ThingsBoard: MQTT max payload


def _float_of(text: str) -> float | NumberText:
    """Called by msgspec with each number that has a point or an exponent."""
    if len(text) < 19 and "e" not in text and "E" not in text:  # as `lenient_json.number_of`
        return float(text)
    return NumberText(text)


_decode_strictly = msgspec.json.Decoder(float_hook=_float_of).decode
STRICT_FAULTS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def check_size(body: bytes, max_bytes: int) -> None:
    if len(body) > max_bytes:
        raise RequestTooLarge(f"The body has {len(body)} bytes; at most {max_bytes} are accepted.")


def decode_leniently(body: bytes, number: Callable[[str], object] = lenient_json.number_of) -> Any:  # Any: decoded JSON
    """Raises: MalformedRequest; its detail names the fault and quotes nothing of the body."""
    try:
        return lenient_json.parse(body.decode("utf-8", "replace"), number=number)
    except lenient_json.LenientJsonError as error:
        raise MalformedRequest(f"The body is not JSON: {error}.") from None


def decode_json(body: bytes) -> Any:  # Any: decoded JSON
    try:
        return _decode_strictly(body)
    except STRICT_FAULTS:
        return decode_leniently(body)


def decode_object(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:  # Any: decoded JSON
    """Raises: MalformedRequest, RequestTooLarge."""
    check_size(body, max_bytes)
    document = decode_json(body)
    if type(document) is not dict:
        raise MalformedRequest("$ must be an object.")
    return document
