"""The stateless part of a DTLS handshake: who has not shown that it receives at its address costs no memory.

A ClientHello without the right cookie is answered by a HelloVerifyRequest, which is always smaller; nothing is
kept. Beside that, how records lie in datagrams. Pure functions of bytes; nothing here raises on any datagram.

Source: RFC 6347 sections 4.1, 4.2.1 and 4.2.2; RFC 5246 section 7.4.1.2.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cloud_core.transports.coap.outbox import Address

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
RECORD_HEADER_BYTES = 13
_MESSAGE_HEADER_BYTES = 12
_CLIENT_HELLO, _HELLO_VERIFY_REQUEST = 1, 3
_RANDOM_BYTES = 32
_DTLS_1_0 = b"\xfe\xff"  # what every version understands (RFC 6347 section 4.2.1)
MAX_MESSAGE_BYTES = 32_768  # of a client's handshake message: room for a chain of ten large certificates
MAX_MESSAGE_NUMBER = 7  # two ClientHello, Certificate, ClientKeyExchange, CertificateVerify; Finished is protected
COOKIE_BYTES = 16
COOKIE_PERIOD_S = 60.0  # a cookie is good for this period and the next


@dataclass(frozen=True, slots=True)
class Hello:
    """The first fragment of a ClientHello, as far as it matters before the peer's address is confirmed."""

    identity: bytes  # random and cookie: tells a repeated one from that of a rebooted device, be its random a bad one
    cookie: bytes
    record_number: bytes  # epoch and sequence number, which the answer repeats
    message_number: bytes
    is_whole: bool  # not in fragments


def is_client_hello(datagram: bytes) -> bool:
    """Whether an unprotected datagram starts with a ClientHello."""
    start = RECORD_HEADER_BYTES
    return datagram[:1] == b"\x16" and datagram[3:5] == b"\0\0" and datagram[start : start + 1] == b"\x01"


def read_hello(datagram: bytes) -> Hello | None:
    """The ClientHello that a datagram starts with; None for everything else."""
    body_start = RECORD_HEADER_BYTES + _MESSAGE_HEADER_BYTES
    end = RECORD_HEADER_BYTES + int.from_bytes(datagram[11:13], "big")
    at = body_start + 2 + _RANDOM_BYTES
    if not is_client_hello(datagram) or datagram[1:2] != b"\xfe" or not at < end <= len(datagram):
        return None
    length, offset, fragment = datagram[14:17], datagram[19:22], datagram[22:25]
    if offset != b"\0\0\0" or body_start + int.from_bytes(fragment, "big") > end:
        return None
    cookie_at = at + 1 + datagram[at]
    if cookie_at >= end or cookie_at + 1 + datagram[cookie_at] > end:
        return None
    cookie = datagram[cookie_at + 1 : cookie_at + 1 + datagram[cookie_at]]
    return Hello(
        identity=datagram[at - _RANDOM_BYTES : at] + cookie,
        cookie=cookie,
        record_number=datagram[3:11],
        message_number=datagram[17:19],
        is_whole=length == fragment,
    )


def hello_verify_request(hello: Hello, cookie: bytes) -> bytes:
    """The answer that asks for the cookie; smaller than any ClientHello."""
    body = _DTLS_1_0 + bytes((len(cookie),)) + cookie
    length = len(body).to_bytes(3, "big")
    message = bytes((_HELLO_VERIFY_REQUEST,)) + length + hello.message_number + bytes(3) + length + body
    return bytes((HANDSHAKE,)) + _DTLS_1_0 + hello.record_number + len(message).to_bytes(2, "big") + message


class Cookies:
    """Cookies of one process, told from the peer's address, a secret and the time alone."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def make(self, peer: Address, now_s: float) -> bytes:
        return self._of(peer, int(now_s // COOKIE_PERIOD_S))

    def is_right(self, cookie: bytes, peer: Address, now_s: float) -> bool:
        """Whether the cookie was made for this address, and lately."""
        if len(cookie) != COOKIE_BYTES:
            return False
        period = int(now_s // COOKIE_PERIOD_S)
        return any(hmac.compare_digest(cookie, self._of(peer, one)) for one in (period, period - 1))

    def _of(self, peer: Address, period: int) -> bytes:
        text = f"{peer[0]} {peer[1]} {period}"
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=COOKIE_BYTES).digest()


def datagrams(flight: bytes, mtu_bytes: int) -> list[bytes]:
    """What OpenSSL has written, joined, as datagrams: whole records, as many as fit into each.

    A record that is larger by itself goes alone.
    """
    packed: list[bytes] = []
    start = at = 0
    while at < len(flight):
        end = at + RECORD_HEADER_BYTES + int.from_bytes(flight[at + 11 : at + 13], "big")
        if end - start > mtu_bytes and at > start:
            packed.append(flight[start:at])
            start = at
        at = end
    if start < len(flight):
        packed.append(flight[start:])
    return packed


def is_moderate(datagram: bytes) -> bool:
    """Whether no unprotected handshake message in whole records claims a size or a number that no client needs.

    OpenSSL sets aside what a first fragment announces, up to ten messages ahead, for whoever has shown an address.
    """
    at, size = 0, len(datagram)
    while at + RECORD_HEADER_BYTES <= size:
        end = at + RECORD_HEADER_BYTES + int.from_bytes(datagram[at + 11 : at + 13], "big")
        message = at + RECORD_HEADER_BYTES
        while datagram[at] == HANDSHAKE and not is_protected(datagram, at) and message + _MESSAGE_HEADER_BYTES <= end:
            length, number = datagram[message + 1 : message + 4], datagram[message + 4 : message + 6]
            if int.from_bytes(length, "big") > MAX_MESSAGE_BYTES or int.from_bytes(number, "big") > MAX_MESSAGE_NUMBER:
                return False
            message += _MESSAGE_HEADER_BYTES + int.from_bytes(datagram[message + 9 : message + 12], "big")
        at = end
    return True


def is_protected(datagram: bytes, at: int = 0) -> bool:
    """Whether the record there is of a later epoch than the first."""
    return datagram[at + 3 : at + 5] != b"\0\0"


def is_framed(datagram: bytes) -> bool:
    """Whether the datagram is whole DTLS records and nothing else."""
    at, size = 0, len(datagram)
    while at + RECORD_HEADER_BYTES <= size:
        if datagram[at + 1] != 0xFE or not CHANGE_CIPHER_SPEC <= datagram[at] <= APPLICATION_DATA:
            return False
        at += RECORD_HEADER_BYTES + int.from_bytes(datagram[at + 11 : at + 13], "big")
    return at == size and size > 0
