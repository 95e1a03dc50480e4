"""Device requests over CoAP to `DeviceApi` calls; used by the fast path and by aiocoap's resource alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, Transport
from cloud_core.transports.coap.errors import CODES, code, max_age
from shared import payloads, topics
from shared.errors import MalformedRequest, NotAuthenticated, PlatformError, RequestTooLarge
from shared.messages import ProvisionResponse
from shared.topics import Feature

log = Logger()

CREATED = code("2.01")
BAD_REQUEST = code("4.00")
METHOD_NOT_ALLOWED = code("4.05")
POST = 2
GET = 1
JSON_FORMAT = 50

# (response code, payload, Max-Age in seconds or None)
Answer = Callable[[int, bytes, int | None], None]


class CoapDeviceAdapter:
    """One method for all requests; calls `answer` exactly once, at once or later."""

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    def handle(self, method: int, segments: Sequence[str], payload: bytes, address: str, answer: Answer) -> None:
        """`segments` are the Uri-Path options; `address` is the peer's IP address."""
        try:
            path = topics.parse_device_path(segments)
        except MalformedRequest as error:
            _refuse(error, answer)
            return
        if path is None or method not in (GET, POST):
            answer(METHOD_NOT_ALLOWED if path is not None else BAD_REQUEST, b"", None)
        elif len(payload) > payloads.MAX_BODY_BYTES:
            _refuse(RequestTooLarge(), answer)
        elif method == POST and path.feature is Feature.PROVISION:
            self._provision(payload, address, answer)
        elif method == POST and path.feature in (Feature.TELEMETRY, Feature.ATTRIBUTES):
            self._post(path.token or "", path.feature, payload, address, answer)
        else:
            answer(BAD_REQUEST, b"", None)

    def _post(self, token: str, feature: Feature, payload: bytes, address: str, answer: Answer) -> None:
        identity = self._api.known_token(token)
        if identity is not None:
            self._store(identity, feature, payload, answer)
            return
        if not token:
            _refuse(NotAuthenticated(), answer)
            return

        def known(outcome: Identity | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.warn("CoAP request refused: {error}", error=str(outcome), source=address)
                _refuse(outcome, answer)
            else:
                self._store(outcome, feature, payload, answer)

        self._api.authenticate_token(token, known)

    def _store(self, identity: Identity, feature: Feature, payload: bytes, answer: Answer) -> None:
        def stored(outcome: None | PlatformError) -> None:
            if outcome is None:
                answer(CREATED, b"", None)
            else:
                _refuse(outcome, answer)

        try:
            if feature is Feature.TELEMETRY:
                samples = payloads.parse_telemetry(payload, received_ms=self._api.now_ms())
                self._api.post_telemetry(identity, samples, stored)
            else:
                self._api.post_attributes(identity, payloads.parse_attributes(payload), stored)
        except PlatformError as error:
            log.warn("Request of {device} dropped: {error}", device=identity.device_name, error=str(error))
            _refuse(error, answer)

    def _provision(self, payload: bytes, address: str, answer: Answer) -> None:
        """2.01 with the credentials; a refusal is 4.00 (4.29, 5.03) with the same JSON as elsewhere."""
        peer = Peer(Transport.COAP, address)
        encoding = payloads.ProvisionEncoding.JSON

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.info("Provision request refused: {reason} {ref}", reason=outcome.reason.value, ref=outcome.ref)
                body = payloads.render_provision_response(payloads.refusal_response(outcome), encoding)
                answer(CODES[type(outcome)], body, max_age(outcome))
            else:
                answer(CREATED, payloads.render_provision_response(outcome, encoding), None)

        try:
            request, encoding = payloads.decode_provision(payload)
        except PlatformError as error:
            self._api.refuse_provision(error, peer, decided)
            return
        self._api.provision(request, peer, decided)


def _refuse(error: PlatformError, answer: Answer) -> None:
    answer(CODES[type(error)], b"", max_age(error))
