"""The OPC UA connector against servers that want certificates and logins."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.server.user_managers import User, UserRole
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edge_gateway.model import Health
from tests.support.asyncio_tests import asyncio_test
from tests.support.gateway_opcua_sites import OpcuaSite, Plant, finished, free_port, running

DEVICE = {"device": "B1", "root": "Objects/Plant/B1", "telemetry": ["Temp -> temperature"]}


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    """Paths of a self-signed certificate (.der) and its key (.pem) for the application `urn:<name>`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:{name}"), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.der", folder / f"{name}.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return str(paths[0]), str(paths[1])


class OneUser:
    """Lets in one name with one password."""

    def get_user(self, _server: Any, username: str = "", password: str = "", certificate: Any = None) -> User | None:
        del certificate
        return User(role=UserRole.User) if (username, password) == ("gw", "the-password") else None


class SecuredPlant(Plant):
    """Wants Basic256Sha256 with encryption, and a login."""

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(port)
        self.certificate, self._key = make_certificate(folder, "server")
        self.server.iserver.user_manager = OneUser()

    async def secure(self) -> None:
        self.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await self.server.load_certificate(self.certificate)
        await self.server.load_private_key(self._key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[SecuredPlant]:
    one = SecuredPlant(free_port(), folder)
    finished(one.secure())
    finished(one.start("B1"))
    yield one
    finished(one.stop())


@pytest.fixture(scope="module")
def secured(server: SecuredPlant, folder: Path) -> dict[str, Any]:
    certificate, key = make_certificate(folder, "edge-gateway")
    return {
        "connect": server.url,
        "security": "Basic256Sha256",
        "certificate": certificate,
        "private_key": key,
        "server_certificate": server.certificate,
        "username": "gw",
        "password": "the-password",
        "timeout": "2 s",
        "device": [DEVICE],
    }


@asyncio_test
async def test_an_encrypted_connection_with_a_login_works(secured: dict[str, Any]) -> None:
    """Certificate, key, the server's certificate, user and password lead to values."""
    site = OpcuaSite()
    async with running(site, **secured):
        await site.until(lambda: site.values("B1", "temperature") == [20.5])
        assert site.state[0] is Health.HEALTHY


@asyncio_test
async def test_any_server_can_be_taken(secured: dict[str, Any]) -> None:
    """With `insecure` the server's certificate is taken from the server itself."""
    site = OpcuaSite()
    async with running(site, **{**secured, "server_certificate": "", "insecure": True}):
        await site.until(lambda: site.values("B1", "temperature") == [20.5])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"password": "another"}, "check username"),
        ({"server_certificate": "/nowhere/server.der"}, "server_certificate: there is no file /nowhere/server.der"),
        ({"certificate": "/nowhere/cert.der"}, "certificate: there is no file /nowhere/cert.der"),
        ({"private_key": "/nowhere/key.pem"}, "private_key: there is no file /nowhere/key.pem"),
        ({"private_key": __file__}, "it must be an RSA key as .pem or .der"),
        (
            {"mode": "Sign", "server_certificate": "", "insecure": True},
            'does not offer security = "Basic256Sha256"',
        ),
    ],
)
@asyncio_test
async def test_a_refused_connection_says_the_fix(secured: dict[str, Any], change: dict[str, Any], told: str) -> None:
    """The reason names the setting and never the password."""
    site = OpcuaSite()
    async with running(site, **{**secured, **change}):
        await site.until(lambda: site.state[0] is Health.DEGRADED)
        assert site.state[1].startswith(secured["connect"])
        assert told in site.state[1]
        assert secured["password"] not in site.state[1]


@asyncio_test
async def test_another_servers_certificate_is_refused(secured: dict[str, Any]) -> None:
    """A server that has not the certificate of the settings gets no login."""
    site = OpcuaSite()
    async with running(site, **{**secured, "server_certificate": secured["certificate"], "timeout": "500 ms"}):
        await site.until(lambda: site.state[0] is Health.DEGRADED)
        assert not site.readings
