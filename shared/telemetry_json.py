"""Telemetry and attribute bodies to samples and attributes; offered to others through `payloads`.

Source: wire-contract.md sections 7.1 and 7.2.
"""

from __future__ import annotations

from typing import Any

from shared.errors import MalformedRequest, RequestTooLarge
from shared.json_bodies import MAX_BODY_BYTES, check_size, decode_json, decode_object
from shared.messages import Sample, Value
from shared.values import (
    MAX_INT64,
    MIN_INT64,
    BadKeySink,
    milliseconds,
    typed_values,
)

MAX_VALUES = 10_000  # of one message; a body of MAX_BODY_BYTES can hardly hold more

_MIN_VALUE_BYTES = 4  # `a:1,`


def parse_telemetry(
    body: bytes,
    *,
    received_ms: int,
    max_bytes: int = MAX_BODY_BYTES,
    max_values: int = MAX_VALUES,
    on_bad_key: BadKeySink | None = None,
) -> list[Sample]:
    """Telemetry in any of its shapes, as samples in the order given; none for `{}` and `[]`.

    Shapes: `{key: value}`, `{"ts": ms, "values": {...}}`, or a list of either. `received_ms` (Unix
    epoch, UTC) stands in where there is no `ts`. Nulls are skipped; a member whose name cannot be
    stored is dropped after `on_bad_key` was called with the name.

    Raises: MalformedRequest, with the JSON path of the first fault; RequestTooLarge.
    Source: wire-contract.md section 7.1.
    """
    if len(body) > max_bytes:
        check_size(body, max_bytes)
    document = decode_json(body)
    if type(document) is dict:
        sample = sample_of(document, received_ms, "$", on_bad_key)
        samples = [sample] if sample[1] else []
    elif type(document) is list:
        samples = _samples(document, received_ms, on_bad_key)
    else:
        raise MalformedRequest("$ must be an object or a list of objects.")
    if len(body) > max_values * _MIN_VALUE_BYTES:
        _check_count(sum(len(values) for _, values in samples), max_values)
    return samples


def parse_attributes(
    body: bytes,
    *,
    max_bytes: int = MAX_BODY_BYTES,
    max_values: int = MAX_VALUES,
    on_bad_key: BadKeySink | None = None,
) -> dict[str, Value]:
    """Attributes `{name: value}`; nulls and names as in `parse_telemetry`.

    Raises: MalformedRequest, RequestTooLarge.
    Source: wire-contract.md section 7.2.
    """
    document = decode_object(body, max_bytes)
    attributes = typed_values(document, on_bad_key)
    _check_count(len(attributes), max_values)
    return attributes


def _check_count(count: int, max_values: int) -> None:
    if count > max_values:
        raise RequestTooLarge(f"The body has {count} values; at most {max_values} are accepted.")


def _samples(elements: list[Any], received_ms: int, on_bad_key: BadKeySink | None) -> list[Sample]:
    samples = []
    for index, element in enumerate(elements):
        if type(element) is not dict:
            raise MalformedRequest(f"$[{index}] must be an object.")
        sample = sample_of(element, received_ms, f"$[{index}]", on_bad_key)
        if sample[1]:
            samples.append(sample)
    return samples


def sample_of(members: dict[str, Any], received_ms: int, path: str, on_bad_key: BadKeySink | None) -> Sample:
    """One sample from decoded JSON; other members are ignored where both `ts` and `values` are present.

    Raises: MalformedRequest; `path` is where the members stand in the body.
    """
    if "ts" not in members or "values" not in members:
        return received_ms, typed_values(members, on_bad_key)
    values = members["values"]
    if type(values) is not dict:
        raise MalformedRequest(f"{path}.values must be an object.")
    ts_ms = members["ts"]
    if type(ts_ms) is not int or not MIN_INT64 <= ts_ms <= MAX_INT64:
        ts_ms = _timestamp(ts_ms, path)
    return ts_ms, typed_values(values, on_bad_key)


def _timestamp(value: object, path: str) -> int:
    ts_ms = milliseconds(value)
    if ts_ms is None:
        raise MalformedRequest(f"{path}.ts must be a number of milliseconds within 64 bits.")
    return ts_ms
