"""Bodies of the requests: telemetry of a fixed size and provision requests of a fixed width.

The size never changes within a run, so a Content-Length or a remaining length is encoded once.
"""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

TS_DIGITS = 13
BASE_TS_MS = 1_700_000_000_000


def telemetry(ts_ms: int, number: int) -> bytes:
    """One reading with its own time stamp; 60 bytes for every 13-digit `ts_ms`."""
    return b'{"ts":%013d,"values":{"temperature":%02d.%02d,"n":%d}}' % (
        ts_ms,
        20 + number % 10,
        number % 97,
        1000 + number % 9000,
    )


def flat_telemetry(number: int) -> bytes:
    """One reading without a time stamp (the server adds its own); 60 bytes."""
    return b'{"temperature":%02d.%02d,"humidity":%02d.%02d,"on":true,"n":%d}' % (
        20 + number % 10,
        number % 97,
        40 + number % 20,
        number % 89,
        1_000_000 + number % 9_000_000,
    )


class ProvisionBodies:
    """Provision requests for ever new devices named PREFIX-0000000001, …; every body has the same length."""

    __slots__ = ("_head", "_tail", "length")

    def __init__(self, *, prefix: str, key: str, secret: str) -> None:
        self._head = b'{"deviceName":"%s-' % prefix.encode()
        self._tail = b'","provisionDeviceKey":"%s","provisionDeviceSecret":"%s"}' % (
            key.encode(),
            secret.encode(),
        )
        self.length = len(self.body(0))

    def body(self, number: int) -> bytes:
        """The request of device `number` (at most ten digits)."""
        return b"%s%010d%s" % (self._head, number, self._tail)


class CsrBodies(ProvisionBodies):
    """As `ProvisionBodies`, each with one of `count` signing requests of keys on P-256, made ahead."""

    __slots__ = ("_requests",)

    def __init__(self, *, prefix: str, key: str, secret: str, count: int) -> None:
        self._requests = _signing_requests(count)
        super().__init__(prefix=prefix, key=key, secret=secret)

    def body(self, number: int) -> bytes:
        start = super().body(number)[:-1]
        return b'%s,"credentialsType":"X509_CSR","csr":"%s"}' % (start, self._requests[number % len(self._requests)])


def _signing_requests(count: int) -> list[bytes]:
    """Base64 of DER, all of one length: signatures have one of a few."""
    made: dict[int, list[bytes]] = {}
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    while max(map(len, made.values()), default=0) < count:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        encoded = base64.b64encode(request.public_bytes(Encoding.DER))
        made.setdefault(len(encoded), []).append(encoded)
    return max(made.values(), key=len)
