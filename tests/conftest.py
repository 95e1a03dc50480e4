"""Shared fixtures: stores on SQLite and PostgreSQL, and the rule that a missing server fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nats_servers import NatsServer
from tests.support.postgresql import PrivatePostgresql, postgresql_programs
from tests.support.stores import InlineReactor, StoreUnderTest, open_store

REQUIRE_ALL = os.environ.get("MUSTER_REQUIRE_ALL") == "1"


def need(program: str, package: str) -> str:
    """Path of an installed program; skips with one clear line, or fails where all is required."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found:
        return found
    message = f"{program} is not installed (Debian package {package})"
    if REQUIRE_ALL:
        pytest.fail(message)
    pytest.skip(message)


def postgresql_binaries() -> Path:
    """Where the server's programs are; skips, or fails where all is required."""
    binaries = postgresql_programs()
    if binaries is None:
        message = "PostgreSQL's server programs are not installed (Debian package postgresql)"
        pytest.fail(message) if REQUIRE_ALL else pytest.skip(message)
    return binaries


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Gives the URL of a fresh database each time it is called."""
    given = os.environ.get("MUSTER_TEST_POSTGRESQL_URL")
    if given:
        yield lambda: given
        return
    server = PrivatePostgresql(postgresql_binaries())
    yield server.new_database
    server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests that leave it alone; each names a cluster of its own."""
    server = NatsServer(need("nats-server", "nats-server"), tmp_path_factory.mktemp("nats")).start()
    yield server
    server.kill()


@pytest.fixture
def new_nats_server(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Makes servers for a test that stops or configures them; not started yet."""
    program, made = need("nats-server", "nats-server"), []

    def make(**options: Any) -> NatsServer:
        made.append(NatsServer(program, tmp_path, **options))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """A running store on each database, driven without a reactor."""
    url = f"sqlite:///{tmp_path / 'muster.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[StoreUnderTest]:
    opened = open_store(f"sqlite:///{tmp_path / 'muster.db'}")
    yield opened
    opened.close()


@pytest.fixture
def inline_reactor() -> InlineReactor:
    return InlineReactor()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Pure tests first: a broken rule is reported before anything slow starts."""
    slow = ("contract", "interop", "scenarios", "browser")
    items.sort(key=lambda item: any(f"/{name}/" in str(item.path) for name in slow))
