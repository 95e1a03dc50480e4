"""A core, a browser, and tests that run in the browser's thread."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import IS_INSTALLED, PROGRAMS, Chromium, Window, artefacts
from tests.browser.fleet import PEOPLE_PASSWORD, SYSTEM_USERNAME, Fleet
from tests.conftest import REQUIRE_ALL
from tests.support.server import PASSWORD, USERNAME, CoreProcess

FOLDER = Path(__file__).parent


def _missing() -> str:
    if not IS_INSTALLED:
        return "playwright or axe-playwright-python is not installed (extra test)"
    if not any(shutil.which(one) for one in PROGRAMS):
        return "chromium is not installed (Debian package chromium)"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a browser one test stands for all of them: it says so in one line."""
    missing = _missing()
    mine = [item for item in items if FOLDER in item.path.parents]
    if not missing or REQUIRE_ALL or not mine:
        return
    mine[0].add_marker(pytest.mark.skip(reason=f"{missing}: no test of the web UI in a browser runs"))
    config.hook.pytest_deselected(items=mine[1:])
    items[:] = [item for item in items if item not in mine[1:]]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    missing = _missing()
    if missing:
        pytest.fail(missing)
    browser = Chromium(next(found for one in PROGRAMS if (found := shutil.which(one))))
    browser.call(browser.start)
    yield browser
    browser.call(browser.stop)


@pytest.fixture(scope="package")
def core(chromium: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreProcess]:
    system = {
        "CLOUD_CORE__ADMIN__SYSTEM_USERNAME": SYSTEM_USERNAME,
        "CLOUD_CORE__ADMIN__SYSTEM_PASSWORD": PEOPLE_PASSWORD,
    }
    process = CoreProcess(tmp_path_factory.mktemp("browser") / "data", **system).start()
    yield process
    process.stop()


@pytest.fixture(scope="package")
def fleet(core: CoreProcess) -> Iterator[Fleet]:
    """The core with devices, gateways, people and refusals in it."""
    made = Fleet(core)
    made.fill()
    yield made
    made.close()


Opens = Callable[..., Window]


@pytest.fixture
def open_as(chromium: Chromium, core: CoreProcess) -> Iterator[Opens]:
    """Opens windows of somebody logged in: `open_as("viewer@test", viewport=PHONE)`."""

    def opened(username: str = USERNAME, password: str = PASSWORD, **options: Any) -> Window:
        return chromium.open_as(core.http, username, password, **options)

    yield opened
    chromium.call(chromium.close_windows)


@pytest.fixture
def open_window(chromium: Chromium, core: CoreProcess) -> Iterator[Opens]:
    """Opens windows of nobody yet."""

    def opened(**options: Any) -> Window:
        return chromium.open(core.http, **options)

    yield opened
    chromium.call(chromium.close_windows)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests that have a browser run in its thread; a failed one leaves pictures of its windows."""
    browser = pyfuncitem.funcargs.get("chromium")
    if not isinstance(browser, Chromium):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    browser.call(_run, browser, pyfuncitem, arguments)
    return True


def _run(browser: Chromium, item: pytest.Function, arguments: dict[str, Any]) -> None:
    try:
        item.obj(**arguments)
        for window in browser.windows:
            assert window.problems == [], "the browser's console"
    except BaseException:
        _keep_evidence(browser, re.sub(r"[^\w.-]+", "-", item.name))
        raise


def _keep_evidence(browser: Chromium, name: str) -> None:
    for number, window in enumerate(browser.windows, start=1):
        try:
            window.picture(f"failed-{name}-{number}")
            (artefacts() / f"failed-{name}-{number}.html").write_text(window.page.content())
        except Exception as error:  # the window may be gone; what failed is told anyway
            print(f"no picture of window {number}: {error}")
