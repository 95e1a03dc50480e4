"""Device requests over HTTP to `DeviceApi` calls; used by the fast front and by klein's routes alike.

What waits stands in `long_polls`, what streams in `downloads`, what a query says in `queries`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from twisted.logger import Logger

from cloud_core.core.api import DeviceApi
from cloud_core.core.downlinks import Interest
from cloud_core.model import Identity, Peer, PresentedChain, Transport
from cloud_core.storage.interface import Done
from cloud_core.transports.http import queries
from cloud_core.transports.http.answers import NOBODY, Answer, Caller, explained, refuse
from cloud_core.transports.http.downloads import Download
from cloud_core.transports.http.errors import STATUS, retry_after
from cloud_core.transports.http.long_polls import LongPoll, LongPolls
from shared import device_json, payloads
from shared.device_paths import parse_device_path
from shared.errors import MalformedRequest, NotAuthorized, PlatformError, RequestTooLarge
from shared.messages import AttributesAnswer, PackageKind, ProvisionResponse
from shared.operations import Operation

log = Logger()
MAX_BODY_BYTES = payloads.MAX_BODY_BYTES
PACKAGES = {"firmware": PackageKind.FIRMWARE, "software": PackageKind.SOFTWARE}
_WAITING_FOR = {Interest.COMMANDS: Operation.RECEIVE_RPC, Interest.ATTRIBUTES: Operation.RECEIVE_ATTRIBUTES}


class HttpDeviceAdapter:
    """One method per kind of device request; each uses `answer` exactly once, at once or later.

    A token is as in the path, percent-encoded; `feature` is the rest of the path; `query` what follows its "?".
    """

    def __init__(self, api: DeviceApi, polls: LongPolls) -> None:
        self._api = api
        self._polls = polls
        self._metrics = api.metrics
        self._taken = api.metrics.taken[Transport.HTTP]

    def post(self, caller: Caller, feature: str, body: bytes, address: str, answer: Answer) -> None:
        """`feature` is `telemetry`, `attributes`, `claim`, `rpc` or `rpc/{id}`."""
        if len(body) > MAX_BODY_BYTES:
            self._refuse(RequestTooLarge(f"the body is above {MAX_BODY_BYTES} bytes"), answer)
            return
        self._identified(caller, address, answer, self._take, feature, body)

    def get_attributes(self, caller: Caller, query: str, address: str, answer: Answer) -> None:
        self._identified(caller, address, answer, self._read_attributes, query)

    def wait(self, poll: LongPoll, caller: Caller, query: str, address: str) -> None:
        """Lets the poll wait for what it is interested in; the answer goes to the poll."""
        self._identified(caller, address, poll.answer, self._open_poll, poll, query)

    def download(
        self, caller: Caller, feature: str, query: str, address: str, answer: Answer, begin: Callable[[Download], None]
    ) -> None:
        """`begin` gets the package in the place of `answer`, which takes refusals; `feature` as in PACKAGES."""
        self._identified(caller, address, answer, self._open_download, PACKAGES[feature], query, begin)

    def provision(self, body: bytes, address: str, answer: Answer) -> None:
        """`POST /api/v1/provision`: 200 for every evaluated outcome."""
        peer = Peer(Transport.HTTP, address)

        def decided(outcome: ProvisionResponse | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                log.info(
                    "Provision request refused: {reason} {ref}", reason=outcome.reason.value, ref=outcome.ref,
                    transport="http", source=peer.address,
                )  # fmt: skip
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

    # -- who asks ---------------------------------------------------------------------------------

    def _identified(
        self, caller: Caller, address: str, answer: Answer, perform: Callable[..., None], *args: Any
    ) -> None:  # Any: what `perform` takes between identity and answer
        """`perform(identity, *args, answer)` for the device that asks."""
        if isinstance(caller, str):
            if "%" in caller:
                caller = unquote(caller)
            identity = self._api.known_token(caller)
        elif caller is not None:
            identity = self._api.certificates.known(caller.leaf)
        else:
            self._refuse(NOBODY, answer)
            return
        if identity is not None:
            self._perform(identity, answer, perform, args)
            return

        def known(outcome: Identity | PlatformError) -> None:
            self._metrics.login(Transport.HTTP, outcome)
            if isinstance(outcome, PlatformError):
                log.warn("HTTP request refused: {error}", error=explained(outcome), source=address)
                self._refuse(outcome, answer)
            else:
                self._perform(outcome, answer, perform, args)

        if isinstance(caller, PresentedChain):
            self._api.certificates.authenticate(caller, Peer(Transport.HTTP, address), known)
        else:
            self._api.authenticate_token(caller, known)

    def _perform(
        self, identity: Identity, answer: Answer, perform: Callable[..., None], args: tuple[Any, ...]
    ) -> None:  # Any: as above
        self._api.presence.seen(identity.device_id)
        try:
            perform(identity, *args, answer)
        except PlatformError as error:
            log.warn("Request of {device} refused: {error}", device=identity.device_name, error=str(error))
            self._refuse(error, answer)

    def _spend_message(self, identity: Identity) -> None:
        """Raises: RateLimited."""
        limited = self._api.rates.message(identity)
        if limited is not None:
            raise limited
        self._taken.other += 1

    # -- what it asks; refusals are raised --------------------------------------------------------

    def _take(self, identity: Identity, feature: str, body: bytes, answer: Answer) -> None:
        if feature == "telemetry":
            self._take_telemetry(identity, body, answer)
            return
        self._spend_message(identity)
        if feature == "attributes":
            self._api.attributes.post(identity, payloads.parse_attributes(body), self._acknowledged(answer))
        elif feature == "claim":
            self._api.claims.offer(identity, device_json.parse_claim(body), self._acknowledged(answer))
        elif feature == "rpc":
            self._call_server(identity, body, answer)
        else:
            self._take_reply(identity, feature, body, answer)

    def _take_telemetry(self, identity: Identity, body: bytes, answer: Answer) -> None:
        samples = payloads.parse_telemetry(body, received_ms=self._api.now_ms())
        rates = self._api.rates
        if rates.is_on:
            limited = rates.telemetry(identity, 1, sum(len(values) for _, values in samples))
            if limited is not None:
                raise limited
        self._taken.telemetry += 1
        for _, values in samples:
            self._taken.data_points += len(values)
        self._api.post_telemetry(identity, samples, self._acknowledged(answer))

    def _call_server(self, identity: Identity, body: bytes, answer: Answer) -> None:
        def called(outcome: Any) -> None:  # Any: decoded JSON
            if isinstance(outcome, PlatformError):
                self._refuse(outcome, answer)
            else:
                answer(200, device_json.render_json(outcome), None)

        self._api.server_methods.call(identity, device_json.parse_call(body), called)

    def _take_reply(self, identity: Identity, feature: str, body: bytes, answer: Answer) -> None:
        """`feature` is `rpc/{id}`; the whole body is the reply."""
        path = parse_device_path(("api", "v1", "-", *feature.split("/")))
        if path is None or path.request_id is None:
            raise MalformedRequest("The id of an RPC must be a 32-bit integer.")
        if not self._api.may(identity, Operation.ANSWER_RPC):
            raise NotAuthorized
        self._api.rpc.reply(identity, path.request_id, device_json.parse_reply(body), self._acknowledged(answer))

    def _read_attributes(self, identity: Identity, query: str, answer: Answer) -> None:
        def found(outcome: AttributesAnswer | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                self._refuse(outcome, answer)
            else:
                answer(200, device_json.render_attributes_answer(outcome), None)

        request = queries.attributes_request(query)
        self._spend_message(identity)
        self._api.attributes.request(identity, request, found)

    def _open_poll(self, identity: Identity, poll: LongPoll, query: str, _answer: Answer) -> None:
        timeout_s = queries.poll_timeout_s(query)
        if not self._api.may(identity, _WAITING_FOR[poll.interest]):
            raise NotAuthorized
        self._spend_message(identity)
        if not poll.is_over:  # the client may have left while its token was looked up
            self._polls.open(poll, identity.device_id, timeout_s)

    def _open_download(
        self, identity: Identity, kind: PackageKind, query: str, begin: Callable[[Download], None], answer: Answer
    ) -> None:
        request = queries.package_request(kind, query)
        self._spend_message(identity)

        def opened(outcome: Download | PlatformError) -> None:
            if isinstance(outcome, PlatformError):
                self._refuse(outcome, answer)
            else:
                begin(outcome)

        Download(lambda wanted, done: self._api.packages.fetch(identity, wanted, done), request).open(opened)

    # -- answers ----------------------------------------------------------------------------------

    def _refuse(self, error: PlatformError, answer: Answer) -> None:
        self._metrics.refused(Transport.HTTP, error.reason.value)
        refuse(error, answer)

    def _acknowledged(self, answer: Answer) -> Done[None]:
        """Answers an empty 200, or the refusal."""

        def done(outcome: PlatformError | None) -> None:
            if outcome is None:
                answer(200, b"", None)
            else:
                self._refuse(outcome, answer)

        return done
