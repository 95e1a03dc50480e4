"""Device requests over HTTP to `DeviceApi` calls; used by the fast front and by klein's routes alike."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.model import Identity, Peer, Transport
from cloud_core.transports.http.errors import STATUS, error_body, retry_after
from shared import payloads
from shared.errors import NotAuthenticated, PlatformError, RequestTooLarge
from shared.messages import ProvisionResponse

log = Logger()
MAX_BODY_BYTES = payloads.MAX_BODY_BYTES

# (status, body, Retry-After in seconds or None); bodies are JSON or empty.
Answer = Callable[[int, bytes, int | None], None]


class HttpDeviceAdapter:
    """One method per device request; each calls `answer` exactly once, at once or later."""

    def __init__(self, api: DeviceApi) -> None:
        self._api = api

    def post(self, token: str, feature: str, body: bytes, address: str, answer: Answer) -> None:
        """`POST /api/v1/{token}/{feature}`; the token is percent-encoded, the feature `telemetry` or `attributes`."""
        if len(body) > MAX_BODY_BYTES:
            _refuse(RequestTooLarge(f"the body is above {MAX_BODY_BYTES} bytes"), answer)
            return
        if "%" in token:
            token = unquote(token)
        identity = self._api.known_token(token)
        if identity is not None:
            self._store(identity, feature, body, answer)
            return

        def known(outcome: Identity | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.warn("HTTP request refused: {error}", error=str(outcome), source=address)
                _refuse(outcome, answer)
            else:
                self._store(outcome, feature, body, answer)

        self._api.authenticate_token(token, known)

    def _store(self, identity: Identity, feature: str, body: bytes, answer: Answer) -> None:
        def stored(outcome: PlatformError | None) -> None:
            if outcome is None:
                answer(200, b"", None)
            else:
                _refuse(outcome, answer)

        try:
            if feature == "telemetry":
                samples = payloads.parse_telemetry(body, received_ms=self._api.now_ms())
                self._api.post_telemetry(identity, samples, stored)
            else:
                self._api.attributes.post(identity, payloads.parse_attributes(body), stored)
        except PlatformError as error:
            log.warn("Request of {device} dropped: {error}", device=identity.device_name, error=str(error))
            _refuse(error, answer)

    def provision(self, body: bytes, address: str, answer: Answer) -> None:
        """`POST /api/v1/provision`: 200 for every evaluated outcome."""
        peer = Peer(Transport.HTTP, address)

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.info("Provision request refused: {reason} {ref}", reason=outcome.reason.value, ref=outcome.ref)
                rendered = payloads.render_provision_response(payloads.refusal_response(outcome))
                answer(STATUS[type(outcome)], rendered, retry_after(outcome))
            else:
                answer(200, payloads.render_provision_response(outcome), None)

        try:
            request = payloads.parse_provision_request(body)
        except PlatformError as error:
            self._api.refuse_provision(error, peer, decided)
            return
        self._api.provision(request, peer, decided)


def _refuse(error: PlatformError, answer: Answer) -> None:
    status = STATUS[type(error)]
    body = b"" if isinstance(error, NotAuthenticated) else error_body(status, str(error))
    answer(status, body, retry_after(error))
