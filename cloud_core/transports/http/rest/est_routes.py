"""EST over HTTPS: a standard client gets a certificate of our CA, and renews it.

The label in the path (`/.well-known/est/{label}/…`) is the name or the id of a device profile. A client without a
certificate authenticates by HTTP Basic with the profile's provision key and secret: the key is one profile's among all
tenants. Its CSR's CN becomes the device's name.

Source: RFC 7030 sections 3.2, 4.1 and 4.2; RFC 8951 (base64 without care for the transfer encoding).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug.exceptions import MethodNotAllowed, NotFound

from cloud_core.core.certificates.enrolment import Enrolment, explained
from cloud_core.core.certificates.signing import certificates_only
from cloud_core.core.line_ration import LineRation
from cloud_core.model import Peer, PresentedChain, Transport
from cloud_core.transports.http.calls import address_of, header_text, raw_body
from cloud_core.transports.http.errors import STATUS, retry_after
from shared import errors
from shared.errors import NotAuthenticated, PlatformError

log = Logger()

MAX_BODY_BYTES = 16_384
MAX_LINES = 100  # of the log about requests that are refused, in LineRation's span
CERTIFICATES_TYPE = "application/pkcs7-mime; smime-type=certs-only"
_DER_START = b"\x30"
PLAIN = "EST is served over HTTPS alone; use the port of [http] tls_port."
NOBODY = (
    "Authenticate by HTTP Basic with provision key and secret of the device profile, or by a client certificate that a "
    "device has."
)
NO_CERTIFICATE = "A renewal needs the device's current certificate as the client certificate of the connection."

# What a peer is told of where REST tells something else: it was understood, and is not done.
_STATUS: dict[type[PlatformError], int] = {
    errors.InvalidCredentials: 400,
    errors.InvalidDeviceName: 400,
    errors.InvalidProvisionCredentials: 401,
    errors.NoAuthority: 404,
    errors.ApprovalPending: 202,  # with Retry-After (RFC 7030 section 4.2.3)
}

# The certificates that the peer of a request has shown, None where it has shown none.
ChainOf = Callable[[Any], PresentedChain | None]  # Any: Request, of which mypy reads too little


def shown_by(request: Any) -> PresentedChain | None:  # Any: as in `ChainOf`
    """What the peer has shown on the request's connection, where that is one of TLS."""
    chain: PresentedChain | None = getattr(request.channel.transport, "chain", None)
    return chain


class EstRoutes:
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = Klein()

    def __init__(self, enrolment: Enrolment, *, now_ms: Callable[[], int], chain_of: ChainOf = shown_by) -> None:
        self._enrolment = enrolment
        self._now_ms = now_ms
        self._chain_of = chain_of
        self._lines = LineRation(MAX_LINES)

    @app.handle_errors(NotFound, MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, NotFound | MethodNotAllowed), "klein's router raises nothing else"
        text = "There are cacerts (GET), simpleenroll and simplereenroll (POST) under /.well-known/est/."
        return _text(request, error.code or 404, text)

    @app.route("/.well-known/est/cacerts", methods=["GET"])
    @app.route("/.well-known/est/<label>/cacerts", methods=["GET"])
    def ca_certificates(self, request: Request, label: str = "") -> Any:
        """For everybody: it is what a client trusts us by."""
        chain = self._chain_of(request)
        return self._answered(request, lambda done: self._enrolment.ca_certificates(label, chain, done))

    @app.route("/.well-known/est/simpleenroll", methods=["POST"])
    @app.route("/.well-known/est/<label>/simpleenroll", methods=["POST"])
    def enrol(self, request: Request, label: str = "") -> Any:
        """A first certificate; for a device that has shown one of another CA, too."""
        basic, chain = _basic(request), self._chain_of(request)

        def start(done: Callable[[Any], None]) -> None:
            csr, peer = _csr(request), Peer(Transport.HTTP, address_of(request))
            if basic is not None:
                self._enrolment.enrol(*basic, csr, peer, done, label=label)
            elif chain is not None:
                self._enrolment.renew(chain, csr, peer, done, label=label)
            else:
                raise NotAuthenticated(NOBODY)

        return self._answered(request, start)

    @app.route("/.well-known/est/simplereenroll", methods=["POST"])
    @app.route("/.well-known/est/<label>/simplereenroll", methods=["POST"])
    def renew(self, request: Request, label: str = "") -> Any:
        """By certificate alone: whoever knows a fleet's provision secret must not take over its devices."""
        chain = self._chain_of(request)

        def start(done: Callable[[Any], None]) -> None:
            if chain is None:
                raise NotAuthenticated(NO_CERTIFICATE)
            peer = Peer(Transport.HTTP, address_of(request))
            self._enrolment.renew(chain, _csr(request), peer, done, label=label)

        return self._answered(request, start)

    def _answered(self, request: Any, start: Callable[[Callable[[Any], None]], None]) -> Any:  # Any: as in `ChainOf`
        """Carries what `start` gives its callback, certificates or a refusal, into the request."""
        if not request.isSecure():
            return _text(request, 403, PLAIN)
        body: Deferred[bytes] = Deferred()  # klein cancels it when the client goes away

        def done(outcome: bytes | list[bytes] | PlatformError) -> None:
            if body.called:
                return
            if isinstance(outcome, PlatformError):
                body.callback(self._refused(request, outcome))
            else:
                body.callback(_certificates(request, [outcome] if isinstance(outcome, bytes) else outcome))

        try:
            start(done)
        except PlatformError as error:
            done(error)
        return body

    def _refused(self, request: Any, error: PlatformError) -> bytes:  # Any: as in `ChainOf`
        status = status_of(error)
        self._note(request, error, status)
        if status == 401:
            request.setHeader("WWW-Authenticate", 'Basic realm="est"')
        wait_s = retry_after(error)
        if wait_s is not None:
            request.setHeader("Retry-After", str(wait_s))
        return _text(request, status, explained(error))

    def _note(self, request: Any, error: PlatformError, status: int) -> None:  # Any: as in `ChainOf`
        is_due, left_out = self._lines.take(self._now_ms() / 1000)
        if left_out:
            log.warn("{left_out} more lines about EST requests were left out", left_out=left_out)
        if is_due:
            log.info(
                "EST request from {source} refused with {status}: {reason} {ref}",
                source=address_of(request), status=status, reason=error.reason.value, ref=error.ref,
            )  # fmt: skip


def status_of(error: PlatformError) -> int:
    """The status that refuses: 400 the request, 401 the client, 403 what it may not have."""
    kind = type(error)
    status = _STATUS.get(kind) or STATUS[kind]
    return 403 if status == 200 else status


def _text(request: Any, status: int, text: str) -> bytes:  # Any: Request, of which mypy reads too little
    body = (text + "\n").encode()
    request.setResponseCode(status)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Content-Length", str(len(body)))
    return body


def _certificates(request: Any, found: list[bytes]) -> bytes:  # Any: as in `_text`
    """Base64 in lines of 64 characters of a PKCS#7 that holds nothing but certificates.

    The lines end as `base64 -d` of any shell reads them; clients of EST overlook white space (RFC 8951 section 3.1).
    """
    encoded = base64.b64encode(certificates_only(found))
    body = b"".join(encoded[at : at + 64] + b"\n" for at in range(0, len(encoded), 64))
    request.setHeader("Content-Type", CERTIFICATES_TYPE)
    request.setHeader("Content-Transfer-Encoding", "base64")
    request.setHeader("Content-Length", str(len(body)))
    return body


def _csr(request: Any) -> str:  # Any: as in `_text`
    """The body: base64 of DER, with or without PEM's marks, or DER itself. Raises: RequestTooLarge."""
    body = raw_body(request, MAX_BODY_BYTES)
    if body[:1] == _DER_START and not body.isascii():
        return base64.b64encode(body).decode("ascii")
    return body.decode("ascii", "replace")


def _basic(request: Any) -> tuple[str, str] | None:  # Any: as in `_text`
    """(user name, password); None where none are sent that can be read."""
    scheme, _, value = header_text(request, b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None
