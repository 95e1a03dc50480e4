"""The preset `thingsboard`: sub-devices that speak ThingsBoard's device API to the gateway, unmodified.

The device is who logged in. Attribute requests are answered from what passed through the gateway since it started: the
client attributes that the device published and the shared ones that the core sent. Claiming, provisioning and firmware
need the core itself and are refused.

Source: wire-contract.md sections 2.5 to 2.10.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from edge_gateway.mapping.interface import MappingError
from edge_gateway.model import Call, CallFailed, Json, Reading
from shared import topics
from shared.device_json import key_list
from shared.errors import PlatformError
from shared.mqtt.connection import OnSettled
from shared.mqtt.filters import is_valid_filter
from shared.operations import Operation
from shared.payloads import parse_attributes, parse_telemetry, value_to_json
from shared.topics import DeviceTopic, Flavour

MAX_REMEMBERED = 50_000  # devices with attributes
GRANTED = frozenset({Operation.RECEIVE_ATTRIBUTES, Operation.RECEIVE_RPC, Operation.RECEIVE_OWN_TREE})
NO_SERVER_CALLS = msgspec.json.encode({"error": "A device behind a gateway cannot call the server"})


class Session(Protocol):
    """What is needed of a device's connection."""

    device: str
    filters: dict[str, int] | None

    def publish(self, topic: str, payload: bytes, qos: int, on_settled: OnSettled | None = None) -> bool: ...
    def answer(self, topic: str, payload: bytes) -> None: ...


@dataclass(slots=True)
class _Attributes:
    client: dict[str, Json] = field(default_factory=dict)
    shared: dict[str, Json] = field(default_factory=dict)


def _plain(values: dict[str, Any]) -> dict[str, Json]:
    """Typed values as decoded JSON."""
    return {
        key: msgspec.json.decode(raw) if isinstance(raw := value_to_json(value), msgspec.Raw) else raw
        for key, value in values.items()
    }


class ThingsboardDevices:
    """All devices that speak it; `session_of` finds a device's connection."""

    def __init__(self, type: str, session_of: Callable[[str], Session | None]) -> None:
        self._type = type
        self._session_of = session_of
        self._attributes: dict[str, _Attributes] = {}
        self._replies: dict[tuple[str, int], asyncio.Future[Json]] = {}
        self._last_id = 0

    # -- what devices say -----------------------------------------------------------------------------

    def read(self, session: Session, topic: str, payload: bytes) -> list[Reading] | None:
        """The readings, perhaps none; None when the topic is not one of these. Raises: MappingError."""
        if not topic.startswith(("v1/devices/me/", "v2/")):
            return None
        try:
            target = topics.parse_topic(topic)
            if target is None:
                return None
            if not session.device:
                raise MappingError("the connection has no device name; give it a user name or a client id")
            if target.flavour is Flavour.V2_PROTOBUF:
                raise MappingError("the gateway reads JSON alone, no protobuf")
            return self._read(session, target, payload)
        except PlatformError as error:
            raise MappingError(str(error)) from error

    def _read(self, session: Session, target: DeviceTopic, payload: bytes) -> list[Reading]:
        device = session.device
        match target.operation:
            case Operation.POST_TELEMETRY:
                return [
                    Reading(device, self._type, ts_ms if ts_ms >= 0 else None, telemetry=_plain(values))
                    for ts_ms, values in parse_telemetry(payload, received_ms=-1)
                    if values
                ]
            case Operation.POST_ATTRIBUTES:
                values = _plain(parse_attributes(payload))
                self._known(device).client.update(values)
                return [Reading(device, self._type, attributes=values)] if values else []
            case Operation.REQUEST_ATTRIBUTES:
                self._answer_request(session, target, payload)
            case Operation.ANSWER_RPC:
                self._take_reply(device, target.request_id, payload)
            case Operation.CALL_SERVER:
                session.answer(topics.call_answer_topic(target.flavour, target.request_id), NO_SERVER_CALLS)
            case _:
                raise MappingError("a device behind a gateway cannot do this; connect it to the core itself")
        return []

    def _answer_request(self, session: Session, target: DeviceTopic, payload: bytes) -> None:
        document = _decoded(payload) if payload.strip() else {}
        if not isinstance(document, dict):
            raise MappingError('an attribute request is an object such as {"clientKeys": "a,b", "sharedKeys": "c"}')
        client_keys = key_list(document.get("clientKeys"), "clientKeys")
        shared_keys = key_list(document.get("sharedKeys"), "sharedKeys")
        wants_all = client_keys is None and shared_keys is None
        known = self._attributes.get(session.device) or _Attributes()
        answer = {}
        for scope, values, keys in (("client", known.client, client_keys), ("shared", known.shared, shared_keys)):
            chosen = values if wants_all else {key: values[key] for key in keys or () if key in values}
            if chosen:
                answer[scope] = chosen
        session.answer(topics.attributes_answer_topic(target.flavour, target.request_id), msgspec.json.encode(answer))

    def _take_reply(self, device: str, number: int, payload: bytes) -> None:
        reply = self._replies.get((device, number))
        if reply is None:
            raise MappingError("a reply that no call waits for, or not any more")
        if not reply.done():
            reply.set_result(_decoded(payload, is_text_fine=True))

    def _known(self, device: str) -> _Attributes:
        known = self._attributes.get(device)
        if known is None:
            if len(self._attributes) >= MAX_REMEMBERED:
                del self._attributes[next(iter(self._attributes))]
            known = self._attributes[device] = _Attributes()
        return known

    # -- what goes to devices ----------------------------------------------------------------------------

    @staticmethod
    def grants(topic_filter: str) -> bool:
        """Whether a device may subscribe to it."""
        return is_valid_filter(topic_filter) and topics.operation_for_subscribe(topic_filter) in GRANTED

    def reaches(self, device: str) -> bool:
        """Whether the device is connected and listens to its calls."""
        session = self._session_of(device)
        return session is not None and self._listens_to_commands(session) is not None

    @staticmethod
    def _listens_to_commands(session: Session) -> tuple[Flavour, int] | None:
        """The topics on which it does, and the granted QoS: a message must not have more [MQTT-3.8.4-8]."""
        wanted = ((topics.push_flavours(one).commands, qos) for one, qos in (session.filters or {}).items())
        return next(((flavour, qos) for flavour, qos in wanted if flavour is not None), None)

    async def call(self, call: Call) -> Json:
        """As `Connector.call`; only when `reaches`."""
        session = self._session_of(call.device)
        wanted = self._listens_to_commands(session) if session is not None else None
        if session is None or wanted is None:
            raise CallFailed(f"{call.device} is not connected")
        flavour, qos = wanted
        self._last_id = number = self._last_id % 2_000_000_000 + 1
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._replies[call.device, number] = reply
        body = msgspec.json.encode({"method": call.method, "params": call.params})
        try:
            is_lost = _fails(reply, call.device) if qos else None
            if not session.publish(topics.command_topic(flavour, number), body, qos, is_lost):
                raise CallFailed(f"{call.device} has too many messages waiting")
            return await asyncio.wait_for(reply, call.timeout_s)
        except TimeoutError:
            raise CallFailed(f"{call.device} did not answer within {call.timeout_s:g} s") from None
        finally:
            del self._replies[call.device, number]

    def attributes_changed(self, device: str, values: dict[str, Json], deleted: list[str]) -> None:
        """Remembers them, and tells the device if it listens."""
        shared = self._known(device).shared
        shared.update(values)
        for key in deleted:
            shared.pop(key, None)
        session = self._session_of(device)
        if session is None:
            return
        wanted: dict[Flavour, int] = {}
        for one, qos in (session.filters or {}).items():
            flavour = topics.push_flavours(one).attributes
            if flavour is not None:
                wanted[flavour] = max(qos, wanted.get(flavour, 0))
        for flavour, qos in wanted.items():
            topic = topics.attributes_topic(flavour)
            if values:
                session.publish(topic, msgspec.json.encode(values), qos)
            if deleted:
                session.publish(topic, msgspec.json.encode({"deleted": deleted}), qos)


def _fails(reply: asyncio.Future[Json], device: str) -> OnSettled:
    """Ends the wait when the device does not take the message."""

    def settled(is_owned: bool) -> None:
        if not is_owned and not reply.done():
            reply.set_exception(CallFailed(f"{device} went away before it took the call"))

    return settled


def _decoded(payload: bytes, *, is_text_fine: bool = False) -> Json:
    if not payload.strip():
        return None
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if is_text_fine:
            return payload.decode("utf-8", "replace")
        raise MappingError("the payload is no JSON") from error
