"""How a device's bodies are written: one interface over JSON and whatever else a profile chooses.

Which codec a message has is decided by the device profile's payload type, by the topic (`…/j`, `…/p`), or by
the Content-Format; see wire-contract.md section 2.11. The codec of protobuf profiles is `protobuf_codec`.
"""

from __future__ import annotations

from typing import Any, Protocol

from shared import device_json, telemetry_json
from shared.messages import (
    Attributes,
    AttributesAnswer,
    AttributesChange,
    AttributesRequest,
    ClaimRequest,
    RpcCommand,
    RpcRequest,
    Sample,
)
from shared.values import BadKeySink


class Codec(Protocol):
    """Bodies to messages (raising MalformedRequest or RequestTooLarge) and back."""

    def telemetry(self, body: bytes, *, received_ms: int, on_bad_key: BadKeySink | None = None) -> list[Sample]: ...
    def attributes(self, body: bytes, *, on_bad_key: BadKeySink | None = None) -> Attributes: ...
    def attributes_request(self, body: bytes) -> AttributesRequest: ...
    def call(self, body: bytes) -> RpcRequest: ...
    def reply(self, body: bytes) -> Any:
        """The device's reply to a command, as decoded JSON."""

    def claim(self, body: bytes) -> ClaimRequest: ...
    def render_attributes_answer(self, answer: AttributesAnswer, request_id: int) -> bytes: ...
    def render_attributes_change(self, change: AttributesChange) -> bytes: ...
    def render_command(self, command: RpcCommand, *, with_id: bool) -> bytes: ...
    def render_call_answer(self, answer: Any, request_id: int) -> bytes:
        """What the server answers to a call; `answer` is JSON in Python's terms."""


class JsonCodec:
    """ThingsBoard's JSON, strict first and lenient where that fails."""

    telemetry = staticmethod(telemetry_json.parse_telemetry)
    attributes = staticmethod(telemetry_json.parse_attributes)
    attributes_request = staticmethod(device_json.parse_attributes_request)
    call = staticmethod(device_json.parse_call)
    reply = staticmethod(device_json.parse_reply)
    claim = staticmethod(device_json.parse_claim)
    render_attributes_change = staticmethod(device_json.render_attributes_change)
    render_command = staticmethod(device_json.render_command)

    def render_attributes_answer(self, answer: AttributesAnswer, request_id: int) -> bytes:
        return device_json.render_attributes_answer(answer)

    def render_call_answer(self, answer: Any, request_id: int) -> bytes:
        return device_json.render_json(answer)


JSON = JsonCodec()
