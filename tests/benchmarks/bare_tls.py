"""What Twisted's TLS costs without us: any first message is answered by a CONNACK that accepts.

python -m tests.benchmarks.bare_tls PORT CERTIFICATE KEY
"""

from __future__ import annotations

import sys
from typing import Any

from OpenSSL import SSL

from .load import mqtt_wire


def main(port: int, certificate: str, key: str) -> None:
    """Runs until SIGTERM."""
    from twisted.internet import epollreactor

    epollreactor.install()  # type: ignore[no-untyped-call]
    from twisted.internet import reactor as installed
    from twisted.internet.protocol import Factory, Protocol

    reactor: Any = installed

    class Answering(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(mqtt_wire.CONNACK_ACCEPTED)  # type: ignore[union-attr]

    class Contexts:
        def getContext(self) -> SSL.Context:
            return context

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(certificate)
    context.use_privatekey_file(key)
    context.set_session_id(b"bare")
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    factory: Any = Factory.forProtocol(Answering)
    factory.noisy = False
    reactor.listenSSL(port, factory, Contexts(), 4096, "127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
