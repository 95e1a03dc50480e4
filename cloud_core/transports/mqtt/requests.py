"""One-shot requests of a device: attributes, calls, replies to commands, claims.

Each is acknowledged first and answered afterwards (wire-contract.md section 2.2); a body that is wrong is
acknowledged with its reason and answered by nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity
from cloud_core.transports.mqtt.pushes import downlink_codec, uplink_codec
from shared import topics
from shared.codecs import Codec
from shared.errors import PlatformError
from shared.messages import AttributesAnswer
from shared.operations import Operation
from shared.topics import Target

log = Logger()

Done = Callable[[Any], None]
Publish = Callable[[str, bytes], None]


class Requests:
    """Carries out the requests of one identity; keeps nothing between them."""

    __slots__ = ("_api", "_identity", "_publish")

    def __init__(self, api: DeviceApi, identity: Identity, publish: Publish) -> None:
        self._api = api
        self._identity = identity
        self._publish = publish

    def perform(self, target: Target, payload: bytes, done: Done) -> None:
        """Raises: MalformedRequest, RequestTooLarge, Unavailable, before `done` was called."""
        codec = uplink_codec(self._identity, target.flavour)
        _OPERATIONS[target.operation](self, target, codec, payload, done)

    def _post_attributes(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.attributes.post(self._identity, codec.attributes(payload), done)

    def _request_attributes(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        request = codec.attributes_request(payload)

        def found(outcome: AttributesAnswer | PlatformError) -> None:
            done(outcome)
            if isinstance(outcome, AttributesAnswer):
                writer = downlink_codec(self._identity, target.flavour)
                topic = topics.attributes_response_topic(target)
                self._write(topic, lambda: writer.render_attributes_answer(outcome, target.request_id))

        self._api.attributes.request(self._identity, request, found)

    def _answer_rpc(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.rpc.reply(self._identity, target.request_id, codec.reply(payload), done)

    def _call_server(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        request = codec.call(payload)
        done(None)

        def answered(outcome: Any) -> None:
            answer = {"error": str(outcome)} if isinstance(outcome, PlatformError) else outcome
            writer = downlink_codec(self._identity, target.flavour)
            topic = topics.call_response_topic(target)
            self._write(topic, lambda: writer.render_call_answer(answer, target.request_id))

        self._api.server_methods.call(self._identity, request, answered)

    def _claim(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.claims.offer(self._identity, codec.claim(payload), done)

    def _write(self, topic: str, render: Callable[[], bytes]) -> None:
        try:
            self._publish(topic, render())
        except PlatformError as error:
            device = self._identity.device_name
            log.warn("An answer to {device} cannot be written: {error}", device=device, error=str(error))


_OPERATIONS: dict[Operation, Callable[[Requests, Target, Codec, bytes, Done], None]] = {
    Operation.POST_ATTRIBUTES: Requests._post_attributes,
    Operation.REQUEST_ATTRIBUTES: Requests._request_attributes,
    Operation.ANSWER_RPC: Requests._answer_rpc,
    Operation.CALL_SERVER: Requests._call_server,
    Operation.CLAIM: Requests._claim,
}
ONE_SHOT = frozenset(_OPERATIONS)
