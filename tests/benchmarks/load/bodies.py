"""Bodies of the requests: telemetry of a fixed size and provision requests of a fixed width.

The size never changes within a run, so a Content-Length or a remaining length is encoded once.
"""

from __future__ import annotations

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
