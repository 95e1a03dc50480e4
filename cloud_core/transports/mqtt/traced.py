"""Messages of MQTT that are traced; nothing of it runs where nobody traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from cloud_core.core import traces
from cloud_core.core.downlinks import Delivery
from cloud_core.core.traces import Span, Traces, ending
from cloud_core.model import Transport
from cloud_core.transports.mqtt.conversation import Conversation
from cloud_core.transports.mqtt.requests import HANDLERS
from cloud_core.transports.mqtt.slots import Slot
from shared import traceparent
from shared.errors import DeviceTimeout, NotAuthenticated, PlatformError
from shared.mqtt.codes import Property
from shared.mqtt.packets import Connect, Properties, Publish
from shared.operations import Operation
from shared.topics import DeviceTopic

MAX_LOOKED_AT = 16  # user properties of one packet
_OPERATIONS = {
    Operation.POST_TELEMETRY: traces.TELEMETRY,
    Operation.POST_ATTRIBUTES: traces.ATTRIBUTES,
    Operation.REQUEST_ATTRIBUTES: traces.ATTRIBUTES_REQUEST,
    Operation.ANSWER_RPC: traces.RPC_REPLY,
    Operation.CALL_SERVER: traces.RPC_CALL,
}
_GATEWAY_TOPICS = {
    "v1/gateway/telemetry": traces.TELEMETRY,
    "v1/gateway/attributes": traces.ATTRIBUTES,
    "v1/gateway/attributes/request": traces.ATTRIBUTES_REQUEST,
    "v1/gateway/rpc": traces.RPC_REPLY,
}


def parent_of(properties: Properties | None) -> str:
    """What the packet says under the name `traceparent`; empty where it does not."""
    pairs = properties.get(Property.USER_PROPERTY) if properties else None
    if not isinstance(pairs, list):
        return ""
    for pair in pairs[:MAX_LOOKED_AT]:
        if isinstance(pair, tuple) and pair[0] == traceparent.NAME:
            return pair[1]
    return ""


def carry_out(tracing: Traces, session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    """As the operation's handler, with a span from here to the outcome."""
    operation = _OPERATIONS.get(topic.operation)
    span = None
    if operation is not None:
        span = tracing.begin(Transport.MQTT, operation, parent_of(packet.properties))
    if span is None:
        HANDLERS[topic.operation](session, packet, topic)
        return
    is_answered_later = topic.operation is Operation.CALL_SERVER
    traced = _TracedConversation(session, span, is_answered_later=is_answered_later)
    try:
        HANDLERS[topic.operation](cast(Conversation, traced), packet, topic)
    except PlatformError as error:
        span.end(error)
        raise


def telling(tracing: Traces, packet: Publish, done: Callable[[Any], None]) -> Callable[[Any], None]:
    """What acknowledges a gateway's message, with a span from here to it."""
    operation = _GATEWAY_TOPICS.get(packet.topic)
    span = tracing.begin(Transport.MQTT, operation, parent_of(packet.properties)) if operation is not None else None
    return ending(span, done)


def login(
    tracing: Traces, packet: Connect, done: Callable[[Any], None], *, is_welcome_anyway: bool
) -> Callable[[Any], None]:
    """What hears who has connected, with a span from here to it. `is_welcome_anyway`: nobody in particular may come
    in, too, to provision."""
    span = tracing.begin(Transport.MQTT, traces.LOGIN, parent_of(packet.properties))
    if span is None:
        return done

    def known(outcome: Any) -> None:  # Any: an identity or a refusal
        is_anonymous = is_welcome_anyway and isinstance(outcome, NotAuthenticated)
        span.end(None if is_anonymous else outcome)
        done(outcome)

    return known


def delivering(tracing: Traces, delivery: Delivery) -> Delivery:
    """`delivery` of a command, with a span from here to what it hears."""
    span = tracing.begin(Transport.MQTT, traces.RPC_COMMAND)
    return delivery if span is None else _TracedDelivery(delivery, span)


class _TracedDelivery:
    __slots__ = ("_delivery", "_span")

    def __init__(self, delivery: Delivery, span: Span) -> None:
        self._delivery = delivery
        self._span = span

    def delivered(self) -> None:
        self._span.end(None)
        self._delivery.delivered()

    def failed(self) -> None:
        self._span.end(DeviceTimeout())
        self._delivery.failed()


class _TracedConversation:
    """A session for the length of one request."""

    def __init__(self, session: Conversation, span: Span, *, is_answered_later: bool) -> None:
        self._session = session
        self._span = span
        self._is_answered_later = is_answered_later  # than the message is acknowledged

    def __getattr__(self, name: str) -> Any:  # Any: everything else is the session's
        return getattr(self._session, name)

    def conclude(self, slot: Slot, packet: Publish, outcome: object) -> None:
        if not self._is_answered_later or isinstance(outcome, PlatformError):
            self._span.end(outcome)
        self._session.conclude(slot, packet, outcome)

    def done(self, packet: Publish) -> Callable[[Any], None]:
        return ending(self._span, self._session.done(packet))

    def answer(self, slot: Slot, topic: str, payload: bytes) -> None:
        self._span.end(None)
        self._session.answer(slot, topic, payload)

    def unanswerable(self, topic: str, error: PlatformError) -> None:
        self._span.end(error)
        self._session.unanswerable(topic, error)
