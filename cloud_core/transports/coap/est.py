"""EST over secured CoAP: the same enrolment as over HTTPS, in binary and with short names.

Over DTLS alone, by the certificate that the session has shown; a device without one asks in its provision request.

Source: RFC 9148 sections 4 and 5.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from cloud_core.core.certificates.enrolment import Enrolment, explained
from cloud_core.core.certificates.signing import certificates_only
from cloud_core.model import Peer, Transport
from cloud_core.transports.coap.errors import (
    BAD_REQUEST,
    CHANGED,
    CODES,
    CONTENT,
    FORBIDDEN,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    SERVICE_UNAVAILABLE,
    TOO_LARGE,
    UNAUTHORIZED,
    UNSUPPORTED_FORMAT,
    max_age_s,
)
from cloud_core.transports.coap.requests import GET, POST, Answer, Answered, Request
from shared import errors
from shared.errors import PlatformError

PATH = (".well-known", "est")
CERTIFICATES, PKCS10, CERTIFICATE = 281, 286, 287  # application/pkcs7-mime;smime-type=certs-only, /pkcs10, /pkix-cert
FORMATS = (CERTIFICATES, CERTIFICATE)
MAX_BODY_BYTES = 16_384
INSECURE = b"EST needs DTLS, and the device's certificate in its handshake."
_METHODS = {"crts": GET, "sen": POST, "sren": POST}

# What a peer may not have, or has written wrongly, apart from the codes of all other requests.
_CODES: dict[type[PlatformError], int] = {
    errors.InvalidCredentials: BAD_REQUEST,
    errors.InvalidDeviceName: BAD_REQUEST,
    errors.NoAuthority: NOT_FOUND,
    errors.ApprovalPending: SERVICE_UNAVAILABLE,  # with Max-Age (RFC 9148 section 5.7)
}

Done = Callable[[bytes | list[bytes] | PlatformError], None]


def is_est(segments: Sequence[str]) -> bool:
    """Whether the path is one of EST's, known or not."""
    return tuple(segments[:2]) == PATH


def perform(enrolment: Enrolment, request: Request, answer: Answer) -> None:
    """Carries out one request whose path `is_est`."""
    label, name = _label_and_name(request.segments)
    method = _METHODS.get(name)
    if method is None:
        answer(Answered(NOT_FOUND))
    elif request.code != method:
        answer(Answered(METHOD_NOT_ALLOWED))
    elif request.chain is None:
        answer(Answered(UNAUTHORIZED, INSECURE))
    elif request.accept not in (None, *FORMATS):
        answer(Answered(NOT_ACCEPTABLE))
    elif method == GET:
        enrolment.ca_certificates(label, request.chain, _answering(request, CONTENT, answer))
    else:
        _enrol(enrolment, request, label, answer)


def _enrol(enrolment: Enrolment, request: Request, label: str, answer: Answer) -> None:
    """A first certificate of ours and a renewal alike: the session's certificate says who asks."""
    assert request.chain is not None, "checked before"
    if request.content_format not in (None, PKCS10):
        answer(Answered(UNSUPPORTED_FORMAT))
    elif len(request.payload) > MAX_BODY_BYTES:
        answer(Answered(TOO_LARGE))
    else:
        csr = base64.b64encode(request.payload).decode("ascii")
        peer = Peer(Transport.COAP, request.peer_address)
        enrolment.renew(request.chain, csr, peer, _answering(request, CHANGED, answer), label=label)


def _answering(request: Request, code: int, answer: Answer) -> Done:
    def done(outcome: bytes | list[bytes] | PlatformError) -> None:
        if isinstance(outcome, PlatformError):
            answer(_refusal(outcome))
            return
        if request.session is not None and code == CHANGED:
            request.session.is_identified = True
        found = [outcome] if isinstance(outcome, bytes) else outcome
        if request.accept != CERTIFICATE:
            answer(Answered(code, certificates_only(found), CERTIFICATES))
        elif len(found) == 1:
            answer(Answered(code, found[0], CERTIFICATE))
        else:
            answer(Answered(NOT_ACCEPTABLE, b"There are several certificates; accept 281."))

    return done


def _refusal(error: PlatformError) -> Answered:
    kind = type(error)
    code = _CODES.get(kind) or (FORBIDDEN if issubclass(kind, errors.ProvisionRefused) else CODES[kind])
    return Answered(code, explained(error).encode("utf-8", "replace")[:400], None, max_age_s(error, code))


def _label_and_name(segments: Sequence[str]) -> tuple[str, str]:
    """What is written before the resource, a profile's name or id, "" for none; ("", "") for a path of no resource."""
    rest = segments[len(PATH) :]
    if len(rest) == 1:
        return "", rest[0]
    return (rest[0], rest[1]) if len(rest) == 2 else ("", "")
