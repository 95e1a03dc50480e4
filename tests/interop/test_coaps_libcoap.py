"""The DTLS listener with libcoap's clients, on OpenSSL and on GnuTLS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud_core.model import Identity, Role
from cloud_core.transports.coap.service import CoapService
from cloud_core.transports.tls import ServerTls
from shared.messages import AttributesChange
from tests.conftest import need
from tests.support.asyncio_tests import asyncio_test
from tests.support.coap import FakeApi
from tests.support.pki import Leaf, Pki

CLIENTS = ("openssl", "gnutls")
WAIT_S = 20


class Site:
    """A service that knows device 11 by its certificate, and libcoap's client of one library."""

    def __init__(self, folder: Path, library: str) -> None:
        self._client = need(f"coap-client-{library}", "libcoap3-bin")
        ca = Pki().root("Server CA")
        server = ca.leaf("localhost", dns_names=("localhost",), extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,))
        self._ca = folder / "ca.pem"
        self._ca.write_text(ca.pem)
        certificate, key = server.write(folder)
        self._folder = folder
        self.device: Leaf = Pki().root().intermediate("Factory").leaf("device")
        self.api = FakeApi()
        self.api.certificates.identities[self.device.der] = Identity(Role.DEVICE, device_id=11, device_name="device")
        self.service = CoapService(
            self.api,  # type: ignore[arg-type]  # a fake
            bind_address="127.0.0.1", port=0, tls=ServerTls(certificate=certificate, private_key=key), dtls_port=0,
        )  # fmt: skip

    def shows(self, leaf: Leaf) -> tuple[str, ...]:
        """The client's options to show a certificate and its chain."""
        certificate, key = leaf.write(self._folder, "shown")
        return ("-c", str(certificate), "-j", str(key))

    async def start(self, path: str, *options: str) -> asyncio.subprocess.Process:
        command = [self._client, "-B", "10", "-C", str(self._ca), *options]
        pipe = asyncio.subprocess.PIPE
        uri = f"coaps://localhost:{self.service.dtls_port}/{path}"
        return await asyncio.create_subprocess_exec(*command, uri, stdout=pipe, stderr=pipe, limit=2**20)

    async def run(self, path: str, *options: str) -> str:
        """What the client prints, answers and complaints."""
        process = await self.start(path, *options)
        out, err = await asyncio.wait_for(process.communicate(), WAIT_S)
        return (out + err).decode().strip()

    async def post(self, path: str, body: bytes, *options: str) -> str:
        file = self._folder / "body"
        file.write_bytes(body)
        return await self.run(path, "-m", "post", "-f", str(file), *options)


def with_both(scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> Any:
    """The scenario as a test with each of the clients."""

    @pytest.mark.parametrize("library", CLIENTS)
    @asyncio_test
    async def test(tmp_path: Path, library: str) -> None:
        site = Site(tmp_path, library)
        await site.service.start()
        try:
            await scenario(site)
        finally:
            await site.service.stop()

    test.__doc__ = scenario.__doc__
    return test


@with_both
async def test_telemetry_by_certificate(site: Site) -> None:
    """Confirmable and not, without a token in the path (X4)."""
    shown = site.shows(site.device)
    assert await site.post("api/v1/telemetry", b'{"t":1}', *shown) == ""
    assert await site.post("api/v1/telemetry", b'{"t":2}', "-N", *shown) == ""
    assert site.api.telemetry == [(11, [(1_000, {"t": 1})]), (11, [(1_000, {"t": 2})])]


@with_both
async def test_telemetry_by_token(site: Site) -> None:
    """With an unknown certificate and with none; without a token both are refused."""
    shown = site.shows(Pki().self_signed("nobody"))
    assert await site.post("api/v1/tok/telemetry", b'{"t":1}', *shown) == ""
    assert await site.post("api/v1/tok/telemetry", b'{"t":2}') == ""
    assert [device for device, _samples in site.api.telemetry] == [1, 1]
    assert "4.01 No device has this certificate" in await site.post("api/v1/telemetry", b"{}", *shown)
    assert "4.01" in await site.post("api/v1/telemetry", b"{}")


@with_both
async def test_attributes_observed_by_certificate(site: Site) -> None:
    """State and change; the client's end takes the observation back."""
    site.api.shared = {"a": 1}
    process = await site.start("api/v1/attributes", "-s", "3", "-w", *site.shows(site.device))
    assert process.stdout is not None
    while not site.api.downlinks.is_open(11):
        await asyncio.sleep(0.02)
    site.api.downlinks.attributes_changed(11, AttributesChange(values={"a": 2}))
    out, _err = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert [json.loads(line) for line in out.decode().split()][:2] == [{"a": 1}, {"a": 2}]
    assert not site.api.downlinks.is_open(11)


@with_both
async def test_blocks_by_certificate(site: Site) -> None:
    """20 kB up in blocks of 256 bytes, 20 kB and a package down."""
    shown = site.shows(site.device)
    text = "y" * 20_000
    body = json.dumps({"t": text}).encode()
    assert await site.post("api/v1/telemetry", body, "-b", "256", *shown) == ""
    assert site.api.telemetry == [(11, [(1_000, {"t": text})])]
    site.api.client = {"t": text}
    assert json.loads(await site.run("api/v1/attributes", *shown)) == {"client": {"t": text}}
    site.api.package = b"firmware" * 2_000
    assert await site.run("api/v1/firmware", *shown) == "firmware" * 2_000


@with_both
async def test_a_long_chain_by_certificate(site: Site) -> None:
    """Several datagrams of certificates."""
    device = Pki().chain_of_length(6)
    site.api.certificates.identities[device.der] = Identity(Role.DEVICE, device_id=12, device_name="long")
    shown = site.shows(device)
    assert await site.post("api/v1/telemetry", b'{"t":1}', *shown) == ""
    assert site.api.telemetry[-1][0] == 12
