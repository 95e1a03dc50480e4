"""Why a handshake failed, in a sentence that says the fix: field engineers read it in the log.

Source: RFC 8446 section 6 (alerts); OpenSSL's reasons as pyOpenSSL reports them.
"""

from __future__ import annotations

from OpenSSL import SSL

# The peer said so in an alert; the words are OpenSSL's for it, without "tlsv1 alert" and the like before them.
_REFUSED_OURS = "client refused our certificate"
_TRUST_US = "the client must trust its CA, and connect to a name that stands in it"
_ALERTS = {
    "unknown ca": f"{_REFUSED_OURS} (unknown ca): give the client the CA that issued it",
    "certificate unknown": f"{_REFUSED_OURS} (certificate unknown): {_TRUST_US}",
    "bad certificate": f"{_REFUSED_OURS} (bad certificate): {_TRUST_US}",
    "certificate expired": f"{_REFUSED_OURS} (expired): renew it, or set the client's clock",
    "certificate revoked": f"{_REFUSED_OURS} (revoked): renew it",
    "unsupported certificate": f"{_REFUSED_OURS} (unsupported): it needs a key and a hash that the client knows",
    "unknown": f"{_REFUSED_OURS}: {_TRUST_US}",
}  # fmt: skip

# We found it.
_FAULTS = {
    "no shared cipher": "the client offers no cipher of ours (forward secrecy with AES-GCM or ChaCha20); update it",
    "unsupported protocol": "the client speaks no TLS 1.2 or 1.3; update it",
    "version too low": "the client speaks no TLS 1.2 or 1.3; update it",
    "wrong version number": "the client does not speak TLS",
    "no suitable key share": "the client offers none of X25519, P-256 and P-384",
    "no suitable signature algorithm": "the client does not know our certificate's kind of key",
    "no shared signature algorithms": "the client does not know our certificate's kind of key",
    "excessive message size": "the client's certificates are too large",
    "bad signature": "the client does not have the key of its certificate",
}

# Of a certificate that strict verification refused: OpenSSL's numbers.
_VERDICTS = {
    2: "no CA of ours issued it", 20: "no CA of ours issued it", 21: "no CA of ours issued it",
    9: "it is not valid yet: check the clocks", 10: "it has expired: renew it",
    18: "it is self-signed", 19: "no CA of ours issued it",
    22: "its chain is too long", 24: "one in its chain is no CA", 25: "its chain is longer than a CA in it allows",
    26: "it is not for clients: extendedKeyUsage lacks clientAuth", 32: "one in its chain may not sign certificates",
    7: "a signature in its chain is wrong", 66: "its key is too weak", 67: "a key in its chain is too weak",
    68: "a hash in its chain is too weak", 79: "one in its chain is no proper CA",
}  # fmt: skip

_HANDSHAKE = 0x16  # type of a TLS record
_MQTT_CONNECT = 0x10

NO_FINISH = "it did not finish in time"
CLOSED = "the client closed the connection; it may not trust our certificate"


def note_verdict(connection: SSL.Connection, error: int) -> None:
    """Remembers why OpenSSL refuses the peer's certificate, for `why`."""
    connection.set_app_data(error)


def why(error: SSL.Error, connection: SSL.Connection | None = None) -> str:
    """What went wrong, in the handshake of `connection` or later."""
    verdict = connection.get_app_data() if connection is not None else None
    if verdict:
        fault = _VERDICTS.get(verdict, f"OpenSSL's error {verdict}")
        return f"the client's certificate is not trusted: {fault}"
    reason = _reason(error)
    for marker in ("alert ", "SSL alert number "):
        _, found, alert = reason.partition(marker)
        if found:
            return _ALERTS.get(alert, f"the client ended it: {alert}")
    return _FAULTS.get(reason, reason or CLOSED)


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return str(queue[-1][2])
    return ""


def plain_text(data: bytes) -> str | None:
    """What a first byte that begins no TLS record says; None for one that does."""
    if data[0] == _HANDSHAKE:
        return None
    if data[0] == _MQTT_CONNECT:
        return "it speaks MQTT without TLS: have it use TLS (mqtts), or the plain MQTT port"
    if data[:1].isalpha() and data[:1].isupper():
        return "it speaks HTTP without TLS: have it use https://, or the plain HTTP port"
    return "it does not speak TLS"
