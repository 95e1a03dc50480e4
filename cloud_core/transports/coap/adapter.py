"""CoAP requests to `DeviceApi` calls and back; used by the fast path and by aiocoap's resource alike.

Knows codes, paths and content formats, no datagrams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, Transport
from cloud_core.transports.coap.errors import (
    BAD_REQUEST,
    CODES,
    CREATED,
    METHOD_NOT_ALLOWED,
    max_age_s,
)
from shared import payloads
from shared.errors import MalformedRequest, NotAuthenticated, PlatformError, RequestTooLarge
from shared.messages import ProvisionResponse
from shared.payloads import ProvisionEncoding
from shared.topics import DevicePath, Feature, parse_device_path

log = Logger()

GET = 0x01
POST = 0x02
JSON = 50
OCTETS = 42
MAX_BODY_BYTES = payloads.MAX_BODY_BYTES
_MAX_DIAGNOSTIC_CHARS = 200

# (code, payload, Content-Format or None, Max-Age in seconds or None), exactly once, at once or later.
Answer = Callable[[int, bytes, int | None, int | None], None]


class CoapDeviceAdapter:
    """Translates requests; keeps nothing between them."""

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    def handle(
        self,
        code: int,
        path_segments: Sequence[str],
        content_format: int | None,
        payload: bytes,
        peer_address: str,
        answer: Answer,
    ) -> None:
        """Carries out one request. `peer_address` is the plain IP address, without port."""
        self.perform(code, route(path_segments), content_format, payload, peer_address, answer)

    def perform(
        self,
        code: int,
        path: DevicePath | None,
        content_format: int | None,
        payload: bytes,
        peer_address: str,
        answer: Answer,
    ) -> None:
        """As `handle`, for a path that is taken apart already."""
        if code != POST:
            answer(BAD_REQUEST if code == GET else METHOD_NOT_ALLOWED, b"", None, None)
        elif path is None:
            answer(BAD_REQUEST, b"", None, None)
        elif path.feature is Feature.TELEMETRY or path.feature is Feature.ATTRIBUTES:
            self._post(path, payload, peer_address, answer)
        elif path.feature is Feature.PROVISION:
            self._provision(payload, content_format, peer_address, answer)
        elif path.feature is Feature.FIRMWARE or path.feature is Feature.SOFTWARE:
            answer(METHOD_NOT_ALLOWED, b"", None, None)
        else:
            answer(BAD_REQUEST, b"", None, None)

    # -- data -------------------------------------------------------------------------------------

    def _post(self, path: DevicePath, payload: bytes, peer_address: str, answer: Answer) -> None:
        if len(payload) > MAX_BODY_BYTES:
            _refuse(RequestTooLarge(f"the body is above {MAX_BODY_BYTES} bytes"), answer)
            return
        token = path.token
        if not token:
            _refuse(NotAuthenticated(), answer)
            return
        identity = self._api.known_token(token)
        if identity is not None:
            self._store(identity, path.feature, payload, answer)
            return

        def known(outcome: Identity | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.warn("CoAP request refused: {error}", error=str(outcome), source=peer_address)
                _refuse(outcome, answer)
            else:
                self._store(outcome, path.feature, payload, answer)

        self._api.authenticate_token(token, known)

    def _store(self, identity: Identity, feature: Feature, payload: bytes, answer: Answer) -> None:
        def stored(outcome: PlatformError | None) -> None:
            if outcome is None:
                answer(CREATED, b"", None, None)
            else:
                _refuse(outcome, answer)

        try:
            if feature is Feature.TELEMETRY:
                samples = payloads.parse_telemetry(payload, received_ms=self._api.now_ms())
            else:
                values = payloads.parse_attributes(payload)
        except PlatformError as error:
            log.warn("Request of {device} dropped: {error}", device=identity.device_name, error=str(error))
            _refuse(error, answer)
            return
        if feature is Feature.TELEMETRY:
            self._api.post_telemetry(identity, samples, stored)
        else:
            self._api.attributes.post(identity, values, stored)

    # -- provisioning -----------------------------------------------------------------------------

    def _provision(self, payload: bytes, content_format: int | None, peer_address: str, answer: Answer) -> None:
        peer = Peer(Transport.COAP, peer_address)
        encoding = ProvisionEncoding.JSON

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.info("Provision request refused: {reason} {ref}", reason=outcome.reason.value, ref=outcome.ref)
                code, age_s, response = (
                    CODES[type(outcome)],
                    max_age_s(outcome),
                    payloads.refusal_response(outcome),
                )
            else:
                code, age_s, response = CREATED, None, outcome
            answer(code, payloads.render_provision_response(response, encoding), answer_format, age_s)

        answer_format = JSON if content_format is None else content_format
        try:
            request, encoding = payloads.decode_provision(payload)
        except PlatformError as error:
            self._api.refuse_provision(error, peer, decided)
            return
        if encoding is ProvisionEncoding.PROTOBUF and content_format is None:
            answer_format = OCTETS
        self._api.provision(request, peer, decided)


def route(path_segments: Sequence[str]) -> DevicePath | None:
    """The path taken apart; None for one that leads nowhere."""
    try:
        return parse_device_path(path_segments)
    except MalformedRequest:
        return None


def _refuse(error: PlatformError, answer: Answer) -> None:
    """The code, with a diagnostic text unless the peer is unknown (RFC 7252 section 5.5.2)."""
    text = "" if isinstance(error, NotAuthenticated) else str(error)[:_MAX_DIAGNOSTIC_CHARS]
    answer(CODES[type(error)], text.encode("utf-8", "replace"), None, max_age_s(error))
