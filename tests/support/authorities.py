"""CAs of ours and signing requests for tests; keys are shared, since only their being there matters."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from cloud_core.core.certificates import authorities
from cloud_core.model import Authority
from tests.support.pki import Key, generate, request_pem
from tests.support.stores import TENANT, StoreUnderTest

NOW_MS = 1_700_000_000_000
KEY = generate("p256")


def csr(name: str = "SN-1", key: Key | str = KEY) -> str:
    """PEM of a request."""
    return request_pem(name, generate(key) if isinstance(key, str) else key)


def add_authority(store: StoreUnderTest, name: str = "plant", *, curve: str = "P-256", **at: Any) -> Authority:
    """A CA of the tenant, ten years old at most."""
    now_ms = at.get("now_ms", NOW_MS)
    chain, key = authorities.make(name, curve, at.get("years", 10), now_ms)
    made: Authority = store.run(authorities.add, TENANT, name, chain, key, now_ms)
    return made


def from_pkcs7(der: bytes) -> list[x509.Certificate]:
    return pkcs7.load_der_pkcs7_certificates(der)
