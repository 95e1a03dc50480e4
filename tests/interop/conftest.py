"""One core for all interop tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import CoreProcess


@pytest.fixture(scope="package")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path_factory.mktemp("core") / "data").start()
    yield process
    process.stop()


@pytest.fixture(scope="package")
def profile(core: CoreProcess) -> dict[str, str]:
    return core.make_profile("interop")
