"""CoAP requests to calls of the core and back; used by the fast path and by aiocoap's resource alike.

Knows codes, paths and content formats, no datagrams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from cloud_core.core import traces
from cloud_core.core.api import DeviceApi
from cloud_core.core.line_ration import LineRation
from cloud_core.core.traces import Traces
from cloud_core.model import Identity, Peer, PresentedChain, Transport
from cloud_core.transports.coap import est, packages
from cloud_core.transports.coap.errors import (
    BAD_REQUEST,
    CODES,
    CONTENT,
    CREATED,
    INTERNAL_ERROR,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UNAUTHORIZED,
    max_age_s,
)
from cloud_core.transports.coap.requests import (
    ACCEPTED,
    GET,
    JSON,
    MAX_BODY_BYTES,
    OCTETS,
    POST,
    Answer,
    Answered,
    Request,
    refusal,
)
from shared import codecs, payloads
from shared.codecs import Codec
from shared.device_json import key_list
from shared.device_paths import Feature
from shared.errors import NotAuthenticated, PlatformError, Reason, RequestTooLarge
from shared.messages import AttributesAnswer, AttributesRequest, ProvisionResponse
from shared.payloads import ProvisionEncoding

log = Logger()

MAX_LINES = 100  # of the log about requests that are refused, in LineRation's span

Action = Callable[[Identity, Request, Answer], None]

UNKNOWN_CERTIFICATE = Answered(
    UNAUTHORIZED, b"No device has this certificate. Register it, or put an access token into the path.",
    reason=NotAuthenticated.reason,
)  # fmt: skip

_TRACED = {
    (POST, Feature.TELEMETRY): traces.TELEMETRY,
    (POST, Feature.ATTRIBUTES): traces.ATTRIBUTES,
    (GET, Feature.ATTRIBUTES): traces.ATTRIBUTES_REQUEST,
    (POST, Feature.RPC): traces.RPC_CALL,
}


class CoapDeviceAdapter:
    """Translates requests; keeps nothing between them but how many lines the log has heard."""

    def __init__(self, api: DeviceApi) -> None:
        self.api = api
        self._lines = LineRation(MAX_LINES)
        self._metrics = api.metrics
        self._taken = api.metrics.taken[Transport.COAP]
        self._actions: dict[tuple[int, Feature], Action] = {
            (POST, Feature.TELEMETRY): self._post_telemetry,
            (POST, Feature.ATTRIBUTES): self._post_attributes,
            (GET, Feature.ATTRIBUTES): self._get_attributes,
            (POST, Feature.RPC): self._reply_or_call,
            (POST, Feature.CLAIM): self._claim,
            (GET, Feature.FIRMWARE): self._get_package,
            (GET, Feature.SOFTWARE): self._get_package,
        }

    def perform(self, request: Request, answer: Answer) -> None:
        """Carries out one request, as it comes without Observe."""
        code, path = request.code, request.path
        if code != POST and code != GET:
            answer(Answered(METHOD_NOT_ALLOWED))
            return
        if path is None and est.is_est(request.segments):
            est.perform(self.api.enrolment, request, answer)
            return
        if path is None:
            answer(Answered(BAD_REQUEST))
            return
        action = self._actions.get((code, path.feature))
        if action is not None:
            if self.api.traces is not None:
                answer = _traced(self.api.traces, request, answer)
            self.identified(request, answer, action)
        elif code == POST and path.feature is Feature.PROVISION:
            self._provision(request, answer)
        elif code == POST and path.feature in (Feature.FIRMWARE, Feature.SOFTWARE):
            answer(Answered(METHOD_NOT_ALLOWED))
        else:
            answer(Answered(BAD_REQUEST))

    def identified(self, request: Request, answer: Answer, action: Action) -> None:
        """Runs `action` with the identity of who asks; a refusal of it is the answer."""
        if len(request.payload) > MAX_BODY_BYTES:
            answer(self._refusal(RequestTooLarge(f"the body is above {MAX_BODY_BYTES} bytes")))
            return
        token, chain = None if request.path is None else request.path.token, request.chain
        if token:
            identity = self.api.known_token(token)
        elif token is None and chain is not None:
            identity = self.api.certificates.known(chain.leaf)
        else:
            answer(self._refusal(NotAuthenticated()))
            return
        if identity is not None:
            self._run(action, identity, request, answer)
            return

        def known(outcome: Identity | PlatformError) -> None:
            self._metrics.login(Transport.COAP, outcome)
            if not isinstance(outcome, PlatformError):
                self._run(action, outcome, request, answer)
                return
            self._note("CoAP request from {who} refused: {why}", request.peer_address, str(outcome))
            is_stranger = isinstance(outcome, NotAuthenticated) and not token
            refused = self._refusal(outcome)
            answer(UNKNOWN_CERTIFICATE if is_stranger else refused)

        self.authenticate(token, chain, request.peer_address, known)

    def authenticate(
        self,
        token: str | None,
        chain: PresentedChain | None,
        peer_address: str,
        done: Callable[[Identity | PlatformError], None],
    ) -> None:
        """Who asks: a path with a token goes by that alone, one without by the certificate of the DTLS session."""
        if self.api.traces is not None and (token or chain is not None):
            done = traces.ending(self.api.traces.begin(Transport.COAP, traces.LOGIN), done)
        if token:
            self.api.authenticate_token(token, done)
        elif token is None and chain is not None:
            self.api.certificates.authenticate(chain, Peer(Transport.COAP, peer_address), done)
        else:
            done(NotAuthenticated())

    def _run(self, action: Action, identity: Identity, request: Request, answer: Answer) -> None:
        try:
            if request.session is not None:
                request.session.is_identified = True
            self.api.presence.seen(identity.device_id)
            action(identity, request, answer)
        except PlatformError as error:
            self._note("CoAP request of {who} dropped: {why}", identity.device_name, str(error))
            answer(self._refusal(error))
        except Exception:
            log.failure("CoAP request failed")
            answer(Answered(INTERNAL_ERROR))

    def _note(self, line: str, who: str, why: str) -> None:
        is_due, left_out = self._lines.take(self.api.now_ms() / 1000)
        if left_out:
            log.warn("{left_out} more lines about CoAP requests were left out", left_out=left_out)
        if is_due:
            log.warn(line, who=who, why=why)

    def spend_message(self, identity: Identity) -> None:
        """One message that is no telemetry. Raises: RateLimited."""
        rates = self.api.rates
        if rates.is_on:
            refused = rates.message(identity)
            if refused is not None:
                raise refused
        self._taken.other += 1

    # -- data -------------------------------------------------------------------------------------

    def _post_telemetry(self, identity: Identity, request: Request, answer: Answer) -> None:
        api = self.api
        samples = codec_for(identity, request).telemetry(request.payload, received_ms=api.now_ms())
        if api.rates.is_on:
            refused = api.rates.telemetry(identity, 1, sum(len(values) for _, values in samples))
            if refused is not None:
                raise refused
        self._taken.telemetry += 1
        for _, values in samples:
            self._taken.data_points += len(values)
        api.post_telemetry(identity, samples, self._accepted(answer))

    def _post_attributes(self, identity: Identity, request: Request, answer: Answer) -> None:
        self.spend_message(identity)
        values = codec_for(identity, request).attributes(request.payload)
        self.api.attributes.post(identity, values, self._accepted(answer))

    def _get_attributes(self, identity: Identity, request: Request, answer: Answer) -> None:
        self.spend_message(identity)
        wanted = AttributesRequest(
            client_keys=key_list(request.query("clientKeys"), "clientKeys") or None,
            shared_keys=key_list(request.query("sharedKeys"), "sharedKeys") or None,
        )
        codec, answer_format = codec_for(identity, request), format_for(identity, request)

        def found(outcome: AttributesAnswer | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                answer(self._refusal(outcome))
            elif not outcome.client and not outcome.shared:
                answer(Answered(NOT_FOUND))
            else:
                self._rendered(answer, answer_format, lambda: codec.render_attributes_answer(outcome, 0))

        self.api.attributes.request(identity, wanted, found)

    # -- commands, calls, claims ------------------------------------------------------------------

    def _reply_or_call(self, identity: Identity, request: Request, answer: Answer) -> None:
        self.spend_message(identity)
        codec, answer_format = codec_for(identity, request), format_for(identity, request)
        number = None if request.path is None else request.path.request_id
        if number is not None:
            self.api.rpc.reply(identity, number, codec.reply(request.payload), self._accepted(answer))
            return

        def called(outcome: Any) -> None:  # Any: decoded JSON, or a refusal
            if isinstance(outcome, PlatformError):
                answer(self._refusal(outcome))
            else:
                self._rendered(answer, answer_format, lambda: codec.render_call_answer(outcome, 0))

        self.api.server_methods.call(identity, codec.call(request.payload), called)

    def _claim(self, identity: Identity, request: Request, answer: Answer) -> None:
        self.spend_message(identity)
        claim = codec_for(identity, request).claim(request.payload)
        self.api.claims.offer(identity, claim, self._accepted(answer))

    def _get_package(self, identity: Identity, request: Request, answer: Answer) -> None:
        piece = packages.wanted(request)
        if piece.is_first_block:
            self.spend_message(identity)  # a download is one message, however small its blocks
        packages.fetch(self.api.packages, identity, piece, answer)

    # -- provisioning -----------------------------------------------------------------------------

    def _provision(self, request: Request, answer: Answer) -> None:
        peer = Peer(Transport.COAP, request.peer_address)
        encoding = ProvisionEncoding.JSON
        content_format = request.content_format

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.info(
                    "Provision request refused: {reason} {ref}", reason=outcome.reason.value, ref=outcome.ref,
                    transport="coap", source=peer.address,
                )  # fmt: skip
                code, age_s, response = (
                    CODES[type(outcome)],
                    max_age_s(outcome),
                    payloads.refusal_response(outcome),
                )
            else:
                code, age_s, response = CREATED, None, outcome
            body = payloads.render_provision_response(response, encoding)
            answer(Answered(code, body, answer_format, age_s))

        answer_format = JSON if content_format is None else content_format
        try:
            wanted, encoding = payloads.decode_provision(request.payload)
        except PlatformError as error:
            self.api.refuse_provision(error, peer, decided)
            return
        if encoding is ProvisionEncoding.PROTOBUF and content_format is None:
            answer_format = OCTETS
        self.api.provision(wanted, peer, decided)

    # -- answers ----------------------------------------------------------------------------------

    def _refusal(self, error: PlatformError) -> Answered:
        self._metrics.refused(Transport.COAP, error.reason.value)
        return refusal(error)

    def _rendered(self, answer: Answer, content_format: int, render: Callable[[], bytes]) -> None:
        """2.05 with what `render` gives, or the refusal it raises."""
        try:
            answer(Answered(CONTENT, render(), content_format))
        except PlatformError as error:
            answer(self._refusal(error))

    def _accepted(self, answer: Answer) -> Callable[[PlatformError | None], None]:
        def stored(outcome: PlatformError | None) -> None:
            answer(ACCEPTED if outcome is None else self._refusal(outcome))

        return stored


def _traced(tracing: Traces, request: Request, answer: Answer) -> Answer:
    """`answer`, with a span from here to it where the request is among those that are traced."""
    path = request.path
    operation = None if path is None else _TRACED.get((request.code, path.feature))
    if path is not None and path.request_id is not None and operation is not None:
        operation = traces.RPC_REPLY
    span = None if operation is None else tracing.begin(Transport.COAP, operation)
    if span is None:
        return answer

    def ended(answered: Answered) -> None:
        is_ours = answered.code >= INTERNAL_ERROR and answered.reason is None
        span.end(Reason.UNAVAILABLE if is_ours else answered.reason)
        answer(answered)

    return ended


def codec_for(identity: Identity, request: Request) -> Codec:
    """The profile's, unless the device says that it writes JSON."""
    return codecs.JSON if request.content_format == JSON else identity.options.codec


def format_for(identity: Identity, request: Request) -> int:
    """The request's Content-Format comes back; without one it is the codec's (wire-contract.md section 4.3)."""
    if request.content_format is not None:
        return request.content_format
    return JSON if identity.options.codec is codecs.JSON else OCTETS
