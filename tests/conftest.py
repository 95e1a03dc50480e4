"""Shared fixtures: stores on SQLite and PostgreSQL, and the rule that a missing server fails in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.nats_servers import NatsServer
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


def _postgresql_bin() -> Path | None:
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if candidates:
        return candidates[0].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def postgresql_binaries() -> Path:
    """Where the server's programs are; skips, or fails where all is required."""
    binaries = _postgresql_bin()
    if binaries is None:
        message = "PostgreSQL's server programs are not installed (Debian package postgresql)"
        pytest.fail(message) if REQUIRE_ALL else pytest.skip(message)
    return binaries


class PrivatePostgresql:
    """A server of our own on a Unix socket, thrown away afterwards; never run as root."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="muster-pg-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self._folder, "postgres", "postgres")
        self._folder.chmod(0o700)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "muster", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self._start()
        self._databases = 0

    def _start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}'"
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def new_database(self) -> str:
        self._databases += 1
        name = f"t{self._databases}"
        self._run("createdb", "-h", str(self._folder), "-U", "muster", name)
        return f"postgresql+psycopg://muster@/{name}?host={self._folder}"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        """Without a word to those who are connected, as when its machine loses power."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        self._start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._binaries / program), *arguments],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, cwd="/",
        )  # fmt: skip


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
