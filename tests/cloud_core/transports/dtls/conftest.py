"""A device of two certificates, and a server to shake hands with."""

from __future__ import annotations

from pathlib import Path

import pytest
from OpenSSL import SSL

from cloud_core.transports.tls import ServerTls
from tests.support.dtls import DtlsUnderTest, client_context, server_tls
from tests.support.pki import Leaf, Pki


@pytest.fixture(scope="module")
def device() -> Leaf:
    return Pki().chain_of_length(2)


@pytest.fixture(scope="module")
def context(device: Leaf) -> SSL.Context:
    return client_context(device)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    folder: Path = tmp_path_factory.mktemp("server")
    return server_tls(folder)


@pytest.fixture
def it(tls: ServerTls) -> DtlsUnderTest:
    return DtlsUnderTest(tls)
