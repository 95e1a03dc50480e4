"""One-shot requests of a device: attributes, calls, replies to commands, claims.

Each is acknowledged first and answered afterwards (wire-contract.md section 2.2); a body that is wrong is
acknowledged with its reason and answered by nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity
from shared import topics
from shared.codecs import Codec
from shared.errors import PlatformError
from shared.messages import AttributesAnswer
from shared.operations import Operation
from shared.topics import Target

Done = Callable[[Any], None]
Publish = Callable[[str, bytes], None]


class Requests:
    """Carries out the requests of one identity; keeps nothing between them."""

    __slots__ = ("_api", "_identity", "_publish")

    def __init__(self, api: DeviceApi, identity: Identity, publish: Publish) -> None:
        self._api = api
        self._identity = identity
        self._publish = publish

    def perform(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        """Raises: MalformedRequest, RequestTooLarge, before `done` was called."""
        _OPERATIONS[target.operation](self, target, codec, payload, done)

    def _post_attributes(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.attributes.post(self._identity, codec.attributes(payload), done)

    def _request_attributes(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        request = codec.attributes_request(payload)

        def found(outcome: AttributesAnswer | PlatformError) -> None:
            done(outcome)
            if isinstance(outcome, AttributesAnswer):
                body = codec.render_attributes_answer(outcome, target.request_id)
                self._publish(topics.attributes_response_topic(target), body)

        self._api.attributes.request(self._identity, request, found)

    def _answer_rpc(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.rpc.reply(self._identity, target.request_id, codec.reply(payload), done)

    def _call_server(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        request = codec.call(payload)
        done(None)

        def answered(outcome: Any) -> None:
            if isinstance(outcome, PlatformError):
                outcome = {"error": str(outcome)}
            self._publish(topics.call_response_topic(target), codec.render_call_answer(outcome, target.request_id))

        self._api.server_methods.call(self._identity, request, answered)

    def _claim(self, target: Target, codec: Codec, payload: bytes, done: Done) -> None:
        self._api.claims.offer(self._identity, codec.claim(payload), done)


_OPERATIONS: dict[Operation, Callable[[Requests, Target, Codec, bytes, Done], None]] = {
    Operation.POST_ATTRIBUTES: Requests._post_attributes,
    Operation.REQUEST_ATTRIBUTES: Requests._request_attributes,
    Operation.ANSWER_RPC: Requests._answer_rpc,
    Operation.CALL_SERVER: Requests._call_server,
    Operation.CLAIM: Requests._claim,
}
ONE_SHOT = frozenset(_OPERATIONS)
