"""Short looks at the network: names, ports, certificates. All block, for a bounded time."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from edge_gateway.settings import Core

CONNECT_S = 4.0
DAY_S = 86_400.0


class Unreachable(Exception):
    """`str()` says what failed and how to mend it."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    is_tls: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def core_address(core: Core) -> Address:
    """Of `[core] url`, which has been checked."""
    parts = urlsplit(core.url)
    is_tls = parts.scheme == "mqtts"
    return Address(parts.hostname or "127.0.0.1", parts.port or (8883 if is_tls else 1883), is_tls)


def addresses_of(host: str) -> list[str]:
    """What DNS says. Raises: Unreachable."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreachable(
            f"the name {host} is not known ({reason}): check its spelling, and this machine's DNS (/etc/resolv.conf)"
        ) from None
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def connect(address: Address) -> float:
    """Seconds that a TCP connection took. Raises: Unreachable."""
    began_s = time.monotonic()
    try:
        socket.create_connection((address.host, address.port), CONNECT_S).close()
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{address} cannot be reached: {tcp_advice(error)}") from None
    return time.monotonic() - began_s


def tcp_advice(error: Exception) -> str:
    """What a failed connection means."""
    if isinstance(error, socket.gaierror):
        return f"the name is not known ({error.strerror}): check its spelling and this machine's DNS"
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_S:g} s: check the address, cables, and firewalls between"
    code = getattr(error, "errno", None)
    if code == errno.ECONNREFUSED:
        return "nothing listens there: check the port, and that the server runs"
    if code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "there is no way to it: check this machine's network and its gateway"
    return getattr(error, "strerror", None) or str(error)


def tls_context(core: Core) -> ssl.SSLContext:
    """As the agent verifies the core. Raises: OSError for files that cannot be read."""
    context = ssl.create_default_context(cafile=core.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if core.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if core.certificate:
        context.load_cert_chain(core.certificate, core.private_key)
    return context


def certificate_days(core: Core, address: Address, *, now_s: float | None = None) -> float | None:
    """Shakes hands as the agent would; days that the core's certificate is still valid, None where it is not verified.

    Raises: Unreachable.
    """
    try:
        context = tls_context(core)
    except OSError as error:
        raise Unreachable(
            f"the certificate files of [core] cannot be used ({error}): check ca_file, certificate, private_key"
        ) from None
    try:
        with (
            socket.create_connection((address.host, address.port), CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as tls,
        ):
            certificate = tls.getpeercert()
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"{address} shows a certificate that is not trusted: {_tls_advice(error)}") from None
    except ssl.SSLError as error:
        raise Unreachable(
            f"{address} does not speak TLS ({error.reason or error}): check the port; mqtt:// is the scheme without TLS"
        ) from None
    except OSError as error:
        raise Unreachable(f"{address} broke the TLS handshake off: {tcp_advice(error)}") from None
    end = certificate.get("notAfter") if certificate else None
    if not isinstance(end, str):
        return None
    return (ssl.cert_time_to_seconds(end) - (time.time() if now_s is None else now_s)) / DAY_S


def _tls_advice(error: ssl.SSLCertVerificationError) -> str:
    text = error.verify_message
    if error.verify_code in (9, 10):  # not yet valid; has expired
        return f"{text}; check this machine's clock first, then renew the core's certificate"
    if error.verify_code == 62:  # the name does not match
        return f"{text}; use the name in the certificate for [core] url"
    return f"{text}; set [core] ca_file to the authority that signed it"


def can_listen(address: Address) -> None:
    """Raises: Unreachable."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: "another program has the port: stop it, or choose another port",
            errno.EACCES: "it needs a right below 1024: choose a higher port, or give the service CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 is all of them",
        }
        raise Unreachable(f"cannot listen on {address}: {reasons.get(error.errno or 0, error.strerror)}") from None
