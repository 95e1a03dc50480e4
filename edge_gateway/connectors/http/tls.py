"""TLS of the HTTP connectors: the certificate of the listener, and whom the poller trusts."""

from __future__ import annotations

import ipaddress
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    DefaultOpenSSLContextFactory,
    trustRootFromCertificates,
)
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer


class TlsUnusable(Exception):
    """A certificate, key or CA file cannot be used; `str()` says which and why."""


def server_context(certificate: str, private_key: str) -> Any:
    """For `TLSMemoryBIOFactory`. Raises: TlsUnusable."""
    try:
        return DefaultOpenSSLContextFactory(private_key, certificate)
    except (OSError, SSL.Error) as error:
        text = f"certificate {certificate} and private_key {private_key} cannot be used together; both are PEM files"
        raise TlsUnusable(text) from error


def client_policy(ca_file: str, *, is_insecure: bool) -> Any:
    """Whom to trust behind https: public authorities, those in `ca_file` alone, or anybody. Raises: TlsUnusable."""
    if is_insecure:
        return _Anybody()
    if not ca_file:
        return BrowserLikePolicyForHTTPS()
    try:
        with open(ca_file, "rb") as file:
            return BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate.loadPEM(file.read())]))
    except (OSError, SSL.Error) as error:
        raise TlsUnusable(f"ca_file {ca_file} cannot be used; it is a PEM file with a certificate") from error


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    def __init__(self, hostname: bytes) -> None:
        self._hostname = hostname

    def clientConnectionForTLS(self, protocol: Any) -> Any:
        connection = SSL.Connection(CertificateOptions(verify=False).getContext(), None)
        try:
            ipaddress.ip_address(self._hostname.decode("ascii").strip("[]"))
        except ValueError:
            connection.set_tlsext_host_name(self._hostname)
        return connection


@implementer(IPolicyForHTTPS)
class _Anybody:
    """Verifies nothing (`insecure = true`)."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return _Unverified(hostname)
