"""Revocation as openssl publishes it: its own OCSP responder, and the lists it makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from cloud_core.core.certificates.revocation import RevocationChecker
from cloud_core.core.certificates.trust import Fault
from cloud_core.model import Revocation
from cloud_core.transports.http.status_fetcher import StatusFetcher
from tests.support.pki import OCSP_SIGNING, Leaf, Pki

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

PKI = Pki()
CA = PKI.root("Factory", key="rsa2048")
GOOD, BAD, STRANGE = CA.leaf("good"), CA.leaf("bad"), CA.leaf("strange")
CONFIG = """
[ca]
default_ca = ca
[ca]
database = {folder}/index.txt
crlnumber = {folder}/number
default_md = sha256
default_crl_days = 1
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid:always
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What openssl needs of a CA that has revoked one certificate, and the list that it made."""
    folder = tmp_path_factory.mktemp("ca")
    CA.write(folder)
    CA.leaf("responder", extended_usage=(OCSP_SIGNING,)).write(folder)
    revoked_at = (PKI.now).strftime("%y%m%d%H%M%SZ")
    lines = [_line("V", GOOD, ""), _line("R", BAD, f"{revoked_at},keyCompromise")]
    (folder / "index.txt").write_text("".join(lines))
    (folder / "number").write_text("01\n")
    (folder / "ca.cnf").write_text(CONFIG.format(folder=folder))
    subprocess.run(
        ["openssl", "ca", "-gencrl", "-config", folder / "ca.cnf", "-cert", folder / "factory.pem", "-keyfile",
         folder / "factory.key", "-out", folder / "list.pem"],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "crl", "-in", folder / "list.pem", "-outform", "DER", "-out", folder / "list.crl"],
        check=True, capture_output=True, timeout=20,
    )  # fmt: skip
    return folder


def _line(status: str, leaf: Leaf, revoked: str) -> str:
    until = leaf.certificate.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
    return f"{status}\t{until}\t{revoked}\t{leaf.certificate.serial_number:040X}\tunknown\t/CN=x\n"


@pytest.fixture(scope="module", params=["factory", "responder"])
def responder(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """URL of openssl's responder, signing as the CA or with a certificate that it gave it."""
    process = subprocess.Popen(
        ["openssl", "ocsp", "-index", folder / "index.txt", "-port", "0", "-CA", folder / "factory.pem", "-rsigner",
         folder / f"{request.param}.pem", "-rkey", folder / f"{request.param}.key", "-nmin", "60"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        port = next(found[1] for line in process.stdout if (found := re.match(r"ACCEPT .*:(\d+)", line)))
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


class Lists(Resource):
    """Files by their names."""

    isLeaf = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def render_GET(self, request: Any) -> bytes:
        return (self.folder / request.path.decode().lstrip("/")).read_bytes()


@pytest.fixture
def published(folder: Path) -> Iterator[str]:
    """URL of the files of the CA."""
    twisted: Any = reactor
    port = twisted.listenTCP(0, Site(Lists(folder)), interface="127.0.0.1")
    yield f"http://127.0.0.1:{port.getHost().port}"
    pytest_twisted.blockon(port.stopListening())


async def outcome(leaf: Leaf, policy: Revocation) -> Any:
    fetcher = StatusFetcher(reactor)
    checked: Deferred[Any] = Deferred()
    now_ms = int(time.time() * 1000)  # openssl's clock
    RevocationChecker(fetch=fetcher.fetch).check([leaf.certificate, CA.certificate], policy, now_ms, checked.callback)
    try:
        return await checked
    finally:
        await fetcher.stop()


@pytest_twisted.ensureDeferred
async def test_openssls_responder_is_understood(responder: str) -> None:
    """Good, revoked, and a certificate that it does not know."""
    policy = Revocation(ocsp=True, ocsp_url=responder)
    assert await outcome(GOOD, policy) is None
    revoked = await outcome(BAD, policy)
    assert (revoked.fault, "keyCompromise" in revoked.detail) == (Fault.REVOKED, True)
    unknown = await outcome(STRANGE, policy)
    assert (unknown.fault, "does not know" in unknown.detail) == (Fault.STATUS_UNKNOWN, True)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["list.pem", "list.crl"])
async def test_openssls_lists_are_understood(published: str, name: str) -> None:
    """As PEM and as DER."""
    policy = Revocation(crl=True, crl_url=f"{published}/{name}")
    assert await outcome(GOOD, policy) is None
    revoked = await outcome(BAD, policy)
    assert (revoked.fault, "keyCompromise" in revoked.detail) == (Fault.REVOKED, True)
