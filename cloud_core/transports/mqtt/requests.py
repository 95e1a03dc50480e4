"""What a device asks for with one message, and the answers (wire-contract.md sections 2.7 to 2.10).

A handler parses first, and raises PlatformError for what it cannot read: nothing has been taken or done by then.
The acknowledgement goes out before the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.transports.mqtt import downloads
from cloud_core.transports.mqtt.conversation import Conversation
from cloud_core.transports.mqtt.flavours import codec_of, downlink_codec_of
from shared import topics
from shared.errors import PlatformError
from shared.messages import AttributesAnswer
from shared.mqtt.packets import Publish
from shared.operations import Operation
from shared.topics import DeviceTopic

Handler = Callable[[Conversation, Publish, DeviceTopic], None]


def _post_telemetry(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    codec = codec_of(session.device.options, topic.flavour)
    samples = codec.telemetry(packet.payload, received_ms=session.received_ms)
    rates = session.api.rates
    limited = rates.telemetry(session.device, 1, sum(len(values) for _, values in samples)) if rates.is_on else None
    if limited is not None:
        session.done(packet)(limited)
        return
    session.api.post_telemetry(session.device, samples, session.done(packet))


def _post_attributes(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    values = codec_of(session.device.options, topic.flavour).attributes(packet.payload)
    session.api.attributes.post(session.device, values, session.done(packet))


def _request_attributes(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    codec = codec_of(session.device.options, topic.flavour)
    request = codec.attributes_request(packet.payload)
    slot = session.take(packet)
    answer_topic = topics.attributes_answer_topic(topic.flavour, topic.request_id)

    def answered(outcome: AttributesAnswer | PlatformError) -> None:
        session.conclude(slot, packet, outcome)
        if not isinstance(outcome, PlatformError):
            try:
                writer = downlink_codec_of(session.device.options, topic.flavour)
                body = writer.render_attributes_answer(outcome, topic.request_id)
            except PlatformError as error:  # the encoding cannot express it
                session.unanswerable(answer_topic, error)
                return
            session.answer(slot, answer_topic, body)

    session.api.attributes.request(session.device, request, answered)


def _answer_rpc(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    value = codec_of(session.device.options, topic.flavour).reply(packet.payload)
    session.api.rpc.reply(session.device, topic.request_id, value, session.done(packet))


def _call_server(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    """Acknowledged at once: the method may take its time."""
    codec = codec_of(session.device.options, topic.flavour)
    request = codec.call(packet.payload)
    slot = session.take(packet)
    session.conclude(slot, packet, None)
    answer_topic = topics.call_answer_topic(topic.flavour, topic.request_id)

    def answered(outcome: Any) -> None:  # Any: decoded JSON
        value = {"error": str(outcome)} if isinstance(outcome, PlatformError) else outcome
        try:
            body = downlink_codec_of(session.device.options, topic.flavour).render_call_answer(value, topic.request_id)
        except PlatformError as error:
            session.unanswerable(answer_topic, error)
            return
        session.answer(slot, answer_topic, body)

    session.api.server_methods.call(session.device, request, answered)


def _claim(session: Conversation, packet: Publish, topic: DeviceTopic) -> None:
    """ThingsBoard closes the connection when it refuses; here v5 hears 0x83, and the session goes on: a client that
    reconnects would send the claim again, and again."""
    request = codec_of(session.device.options, topic.flavour).claim(packet.payload)
    session.api.claims.offer(session.device, request, session.done(packet))


HANDLERS: dict[Operation, Handler] = {
    Operation.POST_TELEMETRY: _post_telemetry,
    Operation.POST_ATTRIBUTES: _post_attributes,
    Operation.REQUEST_ATTRIBUTES: _request_attributes,
    Operation.ANSWER_RPC: _answer_rpc,
    Operation.CALL_SERVER: _call_server,
    Operation.CLAIM: _claim,
    Operation.DOWNLOAD: downloads.download,
}

# Operations that each cost a message of the device's rate; telemetry has rates of its own.
COUNTED = frozenset(HANDLERS) - {Operation.POST_TELEMETRY}
