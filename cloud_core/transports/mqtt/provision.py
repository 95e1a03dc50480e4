"""Provision requests over MQTT (wire-contract.md section 2.5)."""

from __future__ import annotations

from twisted.logger import Logger

from cloud_core.transports.mqtt.conversation import Conversation
from shared import payloads, topics
from shared.errors import PlatformError
from shared.messages import ProvisionResponse
from shared.mqtt.packets import Publish
from shared.operations import Operation
from shared.topics import DeviceTopic

log = Logger()

_RESPONSES = Operation.RECEIVE_PROVISION_RESPONSE


def provision(session: Conversation, packet: Publish, _topic: DeviceTopic) -> None:
    """PUBACK first, then the answer (section 2.2); a malformed request is answered too."""
    slot = session.take(packet)
    encoding = payloads.ProvisionEncoding.JSON

    def answer(outcome: ProvisionResponse | PlatformError) -> None:
        session.conclude(slot, packet, None)
        response = payloads.refusal_response(outcome) if isinstance(outcome, PlatformError) else outcome
        if isinstance(outcome, PlatformError):
            log.info("Provision request refused: {reason} {ref}", reason=response.reason, ref=response.ref)
        body = payloads.render_provision_response(response, encoding)
        session.answer(slot, _response_topic(session, packet.topic), body)

    try:
        request, encoding = payloads.decode_provision(packet.payload)
    except PlatformError as error:
        session.api.refuse_provision(error, session.peer, answer)
        return
    session.api.provision(request, session.peer, answer)


def _response_topic(session: Conversation, request_topic: str) -> str:
    wanted = topics.provision_response_topic(request_topic)
    subscribed = session.subscriptions
    if not subscribed or wanted in subscribed:
        return wanted
    return next((one for one in subscribed if topics.operation_for_subscribe(one) is _RESPONSES), wanted)
