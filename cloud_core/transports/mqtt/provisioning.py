"""Provision requests of a session: PUBACK first, then the answer, on the topic that the client expects.

Source: wire-contract.md sections 1.2, 2.2 and 2.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.model import Peer
from shared import payloads, topics
from shared.errors import PlatformError
from shared.messages import ProvisionResponse
from shared.mqtt.packets import Publish
from shared.operations import Operation

log = Logger()


def provision(
    api: DeviceApi,
    packet: Publish,
    peer: Peer,
    done: Callable[[object], None],
    answer: Callable[[bytes], None],
) -> None:
    """Decides one request; a malformed one is answered too. `answer` gets the body of the response."""
    encoding = payloads.ProvisionEncoding.JSON

    def decided(outcome: ProvisionResponse | PlatformError) -> None:
        done(None)
        response = payloads.refusal_response(outcome) if isinstance(outcome, PlatformError) else outcome
        if isinstance(outcome, PlatformError):
            log.info("Provision request refused: {reason} {ref}", reason=response.reason, ref=response.ref)
        answer(payloads.render_provision_response(response, encoding))

    try:
        request, encoding = payloads.decode_provision(packet.payload)
    except PlatformError as error:
        api.refuse_provision(error, peer, decided)
        return
    api.provision(request, peer, decided)


def response_topic(request_topic: str, subscribed: Iterable[str]) -> str:
    """Where the answer goes: to the form of the topic that was used, or the only one that was subscribed to."""
    wanted = topics.provision_response_topic(request_topic)
    known = list(subscribed)
    if not known or wanted in known:
        return wanted
    responses = Operation.RECEIVE_PROVISION_RESPONSE
    return next((one for one in known if topics.operation_for_subscribe(one) is responses), wanted)
