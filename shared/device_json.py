"""Bodies of attribute requests, commands, calls and claims; offered to others through `payloads`.

Source: wire-contract.md sections 2.7 to 2.10, 3.1 and 7.3.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.errors import MalformedRequest
from shared.json_bodies import MAX_BODY_BYTES, check_size, decode_json, decode_object
from shared.lenient_json import NumberText
from shared.messages import (
    DEFAULT_CLAIM_MS,
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    RpcCommand,
    RpcRequest,
)
from shared.values import MAX_INT64, encodable, typed_member, value_to_json

MAX_METHOD_CHARS = 255
_encode = msgspec.json.Encoder().encode


# --- attributes ----------------------------------------------------------------------------------


def key_list(value: object, name: str) -> tuple[str, ...] | None:
    """Names from a comma list or (ours) an array of strings; None where nothing is given."""
    if value is None:
        return None
    if isinstance(value, str):
        return tuple(key for part in value.split(",") if (key := part.strip()))
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise MalformedRequest(f"$.{name} must be a comma-separated string of keys.")


def parse_attributes_request(body: bytes) -> AttributesRequest:
    """`{"clientKeys": "a,b", "sharedKeys": "c"}`; `{}` asks for everything. Raises: MalformedRequest."""
    document = decode_object(body)
    return AttributesRequest(
        client_keys=key_list(document.get("clientKeys"), "clientKeys"),
        shared_keys=key_list(document.get("sharedKeys"), "sharedKeys"),
    )


def json_of(attributes: Attributes) -> dict[str, Any]:
    """The attributes as `msgspec.json.encode` writes them."""
    return {key: value_to_json(value) for key, value in attributes.items()}


def render_attributes_answer(answer: AttributesAnswer) -> bytes:
    """`{"client": {…}, "shared": {…}}`; a scope without results is left out."""
    members: dict[str, Any] = {}
    if answer.client:
        members["client"] = json_of(answer.client)
    if answer.shared:
        members["shared"] = json_of(answer.shared)
    return _encode(members)


def change_to_json(change: AttributesChange) -> dict[str, Any]:
    """`{"k": v, …}`, or `{"deleted": ["k", …]}`."""
    return {"deleted": list(change.deleted)} if change.deleted else json_of(change.values)


def render_attributes_change(change: AttributesChange) -> bytes:
    return _encode(change_to_json(change))


# --- commands and calls --------------------------------------------------------------------------


def command_to_json(command: RpcCommand, *, with_id: bool) -> dict[str, Any]:
    members: dict[str, Any] = {"id": command.number} if with_id else {}
    return members | {"method": command.method, "params": encodable(command.params)}


def render_command(command: RpcCommand, *, with_id: bool) -> bytes:
    """`{"method": …, "params": …}`, after `id` where no topic tells it (HTTP, CoAP)."""
    return _encode(command_to_json(command, with_id=with_id))


def parse_call(body: bytes) -> RpcRequest:
    """A device calls `{"method": "m", "params": …}`. Raises: MalformedRequest."""
    document = decode_object(body)
    method = document.get("method")
    if not isinstance(method, str) or not 0 < len(method) <= MAX_METHOD_CHARS:
        raise MalformedRequest(f"$.method must be a string of 1 to {MAX_METHOD_CHARS} characters.")
    return RpcRequest(method=method, params=document.get("params"))


class NotJson(str):
    """A device's reply that is text, but no JSON."""

    __slots__ = ()


def parse_reply(body: bytes) -> Any:  # Any: decoded JSON
    """A device's reply to a command: any JSON; text that is none as `NotJson`, nothing as None."""
    check_size(body, MAX_BODY_BYTES)
    if not body.strip():
        return None
    try:
        value = decode_json(body)
    except MalformedRequest:
        return NotJson(body.decode("utf-8", "replace"))
    is_quoted = body.lstrip()[:1] in (b'"', b"'")
    return NotJson(value) if isinstance(value, str) and not is_quoted else value  # leniently, a bare word is a string


def render_json(value: Any) -> bytes:  # Any: decoded JSON
    """Decoded JSON as text again, numbers as they were written."""
    return _encode(encodable(value))


# --- claims --------------------------------------------------------------------------------------


def claim_of(document: object, path: str = "$") -> ClaimRequest:
    """`{"secretKey": "s", "durationMs": 60000}`, both optional. Raises: MalformedRequest."""
    if type(document) is not dict:
        raise MalformedRequest(f"{path} must be an object.")
    secret = document.get("secretKey")
    if secret is not None and not isinstance(secret, str):
        secret = secret.text if isinstance(secret, NumberText) else str(secret)
    duration = typed_member(document.get("durationMs"))
    if duration is not None and (isinstance(duration, bool) or not isinstance(duration, int | float)):
        raise MalformedRequest(f"{path}.durationMs must be a number of milliseconds.")
    is_given = duration is not None and 0 < duration <= MAX_INT64
    return ClaimRequest(secret=secret or "", duration_ms=int(duration or 0) if is_given else DEFAULT_CLAIM_MS)


def parse_claim(body: bytes) -> ClaimRequest:
    """As `claim_of`; an empty body is an empty secret with the default duration."""
    check_size(body, MAX_BODY_BYTES)
    return claim_of(decode_json(body)) if body.strip() else ClaimRequest()
