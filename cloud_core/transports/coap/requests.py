"""What a device asks over CoAP and what it is answered, free of datagrams and of aiocoap.

Source: RFC 7252 sections 5.8 and 12; wire-contract.md sections 4.1 to 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cloud_core.model import PresentedChain
from cloud_core.transports.coap.errors import CODES, CREATED, max_age_s
from shared import payloads
from shared.device_paths import DevicePath, Feature, parse_device_path
from shared.errors import MalformedRequest, NotAuthenticated, PlatformError, Reason

GET = 0x01
POST = 0x02
JSON = 50
OCTETS = 42
MAX_BODY_BYTES = payloads.MAX_BODY_BYTES
ANSWER_TIMEOUT_S = 10.0  # then 5.04 for those that only wait for others (wire-contract.md section 4.2)
_MAX_DIAGNOSTIC_CHARS = 200


class Session(Protocol):
    """A peer's DTLS session. `is_identified` is set once a request of it was a known device's."""

    chain: PresentedChain | None
    is_identified: bool


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, read-only. `block2` is the option's number: block << 4 | more << 3 | size exponent."""

    code: int
    path: DevicePath | None
    content_format: int | None
    segments: tuple[str, ...] = ()  # of the path, where `path` is not enough
    accept: int | None = None
    payload: bytes
    peer_address: str  # plain IP address, without port
    queries: tuple[str, ...] = ()
    block2: int | None = None
    session: Session | None = None  # of a peer that comes through DTLS

    @property
    def chain(self) -> PresentedChain | None:
        """The certificates that the peer has shown."""
        return None if self.session is None else self.session.chain

    @property
    def changes_nothing_here(self) -> bool:
        """Whether giving up on the answer leaves nobody in doubt: reads, and calls of the server."""
        path = self.path
        return self.code == GET or (path is not None and path.feature is Feature.RPC and path.request_id is None)

    def query(self, name: str) -> str | None:
        """The value of `name=value`, the last one where it is given several times."""
        found = None
        for one in self.queries:
            key, _, value = one.partition("=")
            if key == name:
                found = value
        return found


@dataclass(slots=True)
class Answered:
    """A response; a payload that is too large for one message is cut on its way out, unless `block2` is set."""

    code: int
    payload: bytes = b""
    content_format: int | None = None
    max_age_s: int | None = None
    observe: int | None = None
    block2: int | None = None
    size2: int | None = None  # bytes of the whole, told with the first block
    etag: bytes = b""
    reason: Reason | None = None  # of a refusal, for whoever traces


ACCEPTED = Answered(CREATED)

# Called exactly once, at once or later.
Answer = Callable[[Answered], None]


class Sessions(Protocol):
    """The DTLS sessions, asked for by the address of their messages."""

    def is_open(self, address: tuple[Any, ...]) -> bool: ...

    def of(self, address: tuple[Any, ...]) -> Session | None: ...


class NoSessions:
    """Of a socket without DTLS: every address can be reached."""

    def is_open(self, address: tuple[Any, ...]) -> bool:
        return True

    def of(self, address: tuple[Any, ...]) -> Session | None:
        return None


def route(path_segments: Sequence[str]) -> DevicePath | None:
    """The path taken apart; None for one that leads nowhere."""
    try:
        return parse_device_path(path_segments)
    except MalformedRequest:
        return None


def refusal(error: PlatformError) -> Answered:
    """The code, with a diagnostic text unless the peer is unknown (RFC 7252 section 5.5.2)."""
    text = "" if isinstance(error, NotAuthenticated) else str(error)[:_MAX_DIAGNOSTIC_CHARS]
    return Answered(CODES[type(error)], text.encode("utf-8", "replace"), None, max_age_s(error), reason=error.reason)
