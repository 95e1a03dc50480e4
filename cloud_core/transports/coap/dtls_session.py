"""One DTLS association over memory BIOs, from the confirmed ClientHello to its end.

OpenSSL does the protocol: this is what it takes to hand it datagrams, and to get datagrams out again. It has a
clock of its own for flights that get lost; `retransmit` lets it look at it.

Source: RFC 6347; engineering.md section 3.4.
"""

from __future__ import annotations

from OpenSSL import SSL

from cloud_core.model import PresentedChain
from cloud_core.transports.coap.dtls_hello import datagrams
from cloud_core.transports.coap.outbox import Address, Ancillary
from cloud_core.transports.tls import chain_of

MTU_BYTES = 1_200  # of handshake flights: below what any path of today carries
_EXPANSION_BYTES = 128  # of a record: header, nonce and tag, with room
MAX_EARLY = 32  # datagrams of protected records in a handshake: of Finished, its copies, and messages behind it
_MAX_FLIGHT_BYTES = 65_536
_MAX_MESSAGE_BYTES = 16_384  # of a record


class AssociationFailed(Exception):
    """OpenSSL gives it up; `str()` is the reason."""


class Association:
    """A peer's handshake, and then its session. `address` is that of its CoAP messages (see `dtls`)."""

    __slots__ = (
        "_connection", "_early_count", "address", "ancillary", "began_s", "chain", "heard_s", "hello",
        "is_identified", "is_over", "peer",
    )  # fmt: skip

    def __init__(
        self, context: SSL.Context, peer: Address, number: int, hello: bytes, ancillary: Ancillary, now_s: float
    ) -> None:
        self.peer = peer
        self.address: Address = (peer[0], peer[1], number, peer[3])
        self.hello = hello  # the identity of its ClientHello
        self.ancillary = ancillary
        self.began_s = self.heard_s = now_s
        self.chain: PresentedChain | None = None
        self.is_identified = self.is_over = False
        self._early_count = 0
        connection = SSL.Connection(context)
        connection.set_accept_state()
        connection.set_ciphertext_mtu(MTU_BYTES)
        self._connection: SSL.Connection | None = connection  # None once it is over: it is large

    def accept(self, hello: bytes) -> None:
        """Takes the ClientHello whose cookie the caller has found right. Raises: AssociationFailed."""
        assert self._connection is not None
        self._connection.bio_write(hello)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError as error:
            raise AssociationFailed("ClientHello not understood") from error
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error

    def shake(self, datagram: bytes = b"") -> bool:
        """Goes on with the handshake; whether it has ended well. Raises: AssociationFailed."""
        assert self._connection is not None
        if datagram:
            self._connection.bio_write(datagram)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error
        self.chain = chain_of(self._connection)
        return True

    def takes_early(self) -> bool:
        """Whether one more datagram of protected records may come in the handshake, where OpenSSL may keep it."""
        self._early_count += 1
        return self._early_count <= MAX_EARLY

    def retransmit(self) -> None:
        """Writes the last flight again if OpenSSL finds it due. Raises: AssociationFailed."""
        assert self._connection is not None
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error

    def opened(self, datagram: bytes) -> bytes | None:
        """The message of a datagram that is one record; None if it is repeated or forged. Raises: AssociationFailed."""
        connection = self._connection
        assert connection is not None
        try:
            connection.bio_write(datagram)
            return connection.recv(len(datagram))
        except SSL.WantReadError:
            return None
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error

    def take(self, datagram: bytes) -> None:
        """Any records, for `read`."""
        if self._connection is not None:
            self._connection.bio_write(datagram)

    def read(self) -> bytes | None:
        """The next message of what was taken; None when there is none. Raises: AssociationFailed."""
        connection = self._connection
        if connection is None:
            return None
        try:
            return connection.recv(_MAX_MESSAGE_BYTES)
        except SSL.WantReadError:
            return None
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error

    def protected(self, message: bytes) -> bytes:
        """The message as its record; empty when the association is over. Raises: AssociationFailed."""
        connection = self._connection
        if connection is None:
            return b""
        try:
            connection.send(message)
            return connection.bio_read(len(message) + _EXPANSION_BYTES)
        except SSL.Error as error:
            raise AssociationFailed(reason_of(error)) from error

    def written(self) -> list[bytes]:
        """The datagrams that have to be sent: a flight, an alert."""
        connection = self._connection
        if connection is None:
            return []
        try:
            flight = connection.bio_read(_MAX_FLIGHT_BYTES)
        except SSL.WantReadError:
            return []
        return datagrams(flight, MTU_BYTES)

    def say_goodbye(self) -> None:
        """Writes a close_notify, also as the answer to the peer's."""
        if self._connection is not None:
            try:
                self._connection.shutdown()
            except SSL.Error:
                return  # it cannot be said any more

    def release(self) -> None:
        self._connection = None
        self.is_over = True


def reason_of(error: SSL.Error) -> str:
    """What went wrong, in OpenSSL's words."""
    if isinstance(error, SSL.ZeroReturnError):
        return "closed by the peer"
    details = error.args[0] if error.args and isinstance(error.args[0], list) else ()
    reasons = [str(detail[2]) for detail in details if isinstance(detail, tuple) and len(detail) > 2 and detail[2]]
    return ", ".join(reasons) or type(error).__name__
