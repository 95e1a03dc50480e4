"""Devices with certificates on the DTLS port of a real core, with libcoap's clients on OpenSSL and on GnuTLS."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.conftest import need
from tests.interop.test_stock_clients import http_token
from tests.support.pki import Leaf, Pki
from tests.support.server import CoreProcess

WAIT_S = 20


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


class DtlsCore(CoreProcess):
    """On a DTLS port of the caller's choice."""

    def __init__(self, data_dir: Path, coaps_port: int, **environment: str) -> None:
        super().__init__(data_dir, **environment)
        self.coaps_port = coaps_port


class SecureCore:
    """A core with a DTLS port, and a profile that trusts the factory's root.

    It has the intermediate as well, because libcoap on OpenSSL shows nothing but the leaf.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ca = Pki().root("Server CA")
        (folder / "ca.pem").write_text(ca.pem)
        usage = (ExtendedKeyUsageOID.SERVER_AUTH,)
        certificate, key = ca.leaf("localhost", dns_names=("localhost",), extended_usage=usage).write(folder)
        self.port = free_udp_port()
        environment = {
            "CLOUD_CORE__TLS__CERTIFICATE": str(certificate), "CLOUD_CORE__TLS__PRIVATE_KEY": str(key),
            "CLOUD_CORE__HTTP__TLS_PORT": "0", "CLOUD_CORE__MQTT__TLS_PORT": "0",
            "CLOUD_CORE__COAP__DTLS_PORT": str(self.port),
        }  # fmt: skip
        self.core = DtlsCore(folder / "data", self.port, **environment)
        self.core.start()
        self.factory = Pki().root("Factory root")
        self.line = self.factory.intermediate("Factory line")
        self.core.make_profile(
            "factory", "X509_CERTIFICATE_CHAIN", provisionDeviceSecret=self.factory.pem + self.line.pem,
            certificateRegExPattern="(.*)", allowCreateNewDevicesByX509Certificate=True,
        )  # fmt: skip

    def run(self, library: str, leaf: Leaf | None, path: str, *options: str) -> str:
        """What the client prints, answers and complaints."""
        command = [need(f"coap-client-{library}", "libcoap3-bin"), "-B", "10", "-C", str(self.folder / "ca.pem")]
        if leaf is not None:
            certificate, key = leaf.write(self.folder, "shown")
            command += ["-c", str(certificate), "-j", str(key)]
        uri = f"coaps://localhost:{self.port}/api/v1/{path}"
        done = subprocess.run([*command, *options, uri], capture_output=True, text=True, timeout=WAIT_S, check=True)
        return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCore]:
    made = SecureCore(tmp_path_factory.mktemp("secure"))
    yield made
    made.core.stop()


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_a_factory_certificate_is_all_that_a_device_needs(secure: SecureCore, library: str) -> None:
    """Its first message creates it by its chain; the next ones find it; attributes are its own (X4)."""
    name = f"coaps-{library}"
    device = secure.line.leaf(name)
    for value in (21, 22):
        body = json.dumps({"temperature": value})
        assert secure.run(library, device, "telemetry", "-m", "post", "-e", body) == ""
        assert secure.core.latest(name) == {"temperature": value}
    assert secure.run(library, device, "attributes", "-m", "post", "-e", '{"serial":"a7"}') == ""
    assert json.loads(secure.run(library, device, "attributes?clientKeys=serial")) == {"client": {"serial": "a7"}}


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_a_strangers_certificate_opens_nothing(secure: SecureCore, library: str) -> None:
    """The handshake succeeds, and the answer is 4.01 with the reason."""
    stranger = Pki().root("Somebody's").leaf("stranger")
    assert "4.01" in secure.run(library, stranger, "telemetry", "-m", "post", "-e", "{}")


@pytest.mark.parametrize("library", ["openssl", "gnutls"])
def test_a_token_works_without_certificate(secure: SecureCore, library: str) -> None:
    """The path's token alone."""
    profile = secure.core.make_profile(f"tokens-{library}")
    token = http_token(secure.core, profile, f"coaps-token-{library}")
    assert secure.run(library, None, f"{token}/telemetry", "-m", "post", "-e", '{"t":3}') == ""
    assert secure.core.latest(f"coaps-token-{library}") == {"t": 3}
