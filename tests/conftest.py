"""Shared fixtures: stores on SQLite and PostgreSQL, and the rule that a missing server fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgresql import PrivatePostgresql, postgresql_programs
from tests.support.stores import InlineReactor, StoreUnderTest, open_store

REQUIRE_ALL = os.environ.get("MUSTER_REQUIRE_ALL") == "1"


def need(program: str, package: str) -> str:
    """Path of an installed program; skips with one clear line, or fails where all is required."""
    found = shutil.which(program)
    if found:
        return found
    message = f"{program} is not installed (Debian package {package})"
    if REQUIRE_ALL:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Gives the URL of a fresh database each time it is called."""
    given = os.environ.get("MUSTER_TEST_POSTGRESQL_URL")
    if given:
        yield lambda: given
        return
    binaries = postgresql_programs()
    if binaries is None:
        message = "PostgreSQL's server programs are not installed (Debian package postgresql)"
        pytest.fail(message) if REQUIRE_ALL else pytest.skip(message)
    server = PrivatePostgresql(binaries)
    yield server.new_database
    server.stop()


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
