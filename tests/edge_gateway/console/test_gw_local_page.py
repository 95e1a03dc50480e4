"""The local page in a real browser."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from pathlib import Path

from edge_gateway.config import Config
from tests.conftest import need
from tests.support.asyncio_tests import asyncio_test
from tests.support.browser import Browser
from tests.support.local_doors import DoorUnderTest, FakeGateway, table

TEXT = '[core]\ntoken = "core-token-1"\n\n[[plant]]\nname = "north"\npassword = "north-pass"\n'
SHOTS = os.environ.get("MUSTER_SCREENSHOTS", "")  # a folder, for people who want to look at the page


async def browse(door: DoorUnderTest, work: Callable[[Browser], None]) -> None:
    """Logs in and does `work` in a thread; afterwards nothing was complained about."""

    def run() -> None:
        with Browser(need("chromium", "chromium")) as browser:
            browser.size(1100, 800)
            browser.open(door.url)
            browser.wait("document.getElementById('view-login')?.hidden === false")
            browser.complaints.clear()  # the page was refused before it was logged in
            browser.type("#pin", door.pin)
            browser.click("#login-form button")
            browser.wait(
                "!document.getElementById('view-status').hidden && document.querySelector('#sources li') !== null"
            )
            work(browser)
            assert browser.complaints == []

    await asyncio.to_thread(run)


def shoot(browser: Browser, name: str) -> None:
    if SHOTS:
        shot = browser.call("Page.captureScreenshot", format="png")
        (Path(SHOTS) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def go(browser: Browser, name: str) -> None:
    browser.click(f"nav a[href='#{name}']")
    browser.wait(f"!document.getElementById('view-{name}').hidden")


@asyncio_test
async def test_a_wrong_pin_is_said_on_the_page(tmp_path: Path) -> None:
    """And where the right one is found."""
    program = need("chromium", "chromium")
    async with DoorUnderTest(tmp_path, TEXT) as door:

        def run() -> None:
            with Browser(program) as browser:
                browser.open(door.url)
                browser.wait("document.getElementById('view-login')?.hidden === false")
                shoot(browser, "login")
                browser.type("#pin", "x")
                browser.click("#login-form button")
                browser.wait("document.getElementById('login-error').textContent.includes('wrong PIN')")

        await asyncio.to_thread(run)


@asyncio_test
async def test_status_shows_sources_as_traffic_lights_with_words(tmp_path: Path) -> None:
    """The last error in words, what was turned away as plain text, and the page fits a telephone, light and dark."""
    gateway = FakeGateway(Config(connectors=(table("north"), table("<b>hall</b>"), table("spare", is_enabled=False))))
    gateway.healths["<b>hall</b>"] = ("failed", "no route to 10.0.0.9; started again in 8 s")
    need("chromium", "chromium")
    async with DoorUnderTest(tmp_path, TEXT, gateway) as door:

        def work(browser: Browser) -> None:
            shown = browser.text("#sources")
            assert "<b>hall</b> plant · failed" in shown and "no route to 10.0.0.9" in shown
            assert "north plant · healthy" in shown and "spare plant · stopped" in shown
            assert browser.run("document.querySelectorAll('#sources .light.failed').length") == 1
            assert "connected" in browser.text("#tile-core") and "3" in browser.text("#tile-dropped")
            assert "north t/1: no JSON" in browser.text("#samples")
            shoot(browser, "status")
            for is_dark in (False, True):
                browser.size(360, 740, is_dark=is_dark)
                for name in ("status", "devices", "live", "config"):
                    go(browser, name)
                    shoot(browser, f"phone-{name}-{'dark' if is_dark else 'light'}")
                    assert browser.run("document.documentElement.scrollWidth") <= 360, name

        await browse(door, work)


@asyncio_test
async def test_devices_and_live_readings_are_shown(tmp_path: Path) -> None:
    """Searched and filtered; what devices say is text."""
    need("chromium", "chromium")
    async with DoorUnderTest(tmp_path, TEXT) as door:
        for number in range(150):
            door.gateway.add_device(f"meter-{number:03}")
        loop = asyncio.get_running_loop()

        def work(browser: Browser) -> None:
            go(browser, "devices")
            browser.wait("document.querySelectorAll('#devices-rows tr').length === 100")
            browser.click("#devices-next")
            browser.wait("document.getElementById('devices-count').textContent === '101–150 of 150'")
            browser.type("#devices-search", "meter-007")
            browser.click("#devices-form button")
            browser.wait("document.querySelectorAll('#devices-rows tr').length === 1")
            shoot(browser, "devices")
            go(browser, "live")
            browser.wait("document.getElementById('live-state').textContent.startsWith('listening')")
            loop.call_soon_threadsafe(lambda: door.gateway.says("meter-1", power=1523.4, note="<i>hot</i>"))
            browser.wait("document.querySelectorAll('#live-rows tr').length === 2")
            assert "1523.4" in browser.text("#live-rows") and "<i>hot</i>" in browser.text("#live-rows")
            assert "0x01" in browser.text("#live-rows")
            shoot(browser, "live")
            go(browser, "status")

        await browse(door, work)
        while door.gateway.listeners:
            await asyncio.sleep(0.01)


@asyncio_test
async def test_a_configuration_is_edited_checked_and_applied(tmp_path: Path) -> None:
    """Problems lead to their lines, the difference is confirmed, the file keeps its secrets."""
    need("chromium", "chromium")
    async with DoorUnderTest(tmp_path, TEXT) as door:

        def work(browser: Browser) -> None:
            go(browser, "config")
            browser.wait("document.getElementById('config-text').value.includes('north')")
            field = "document.getElementById('config-text')"
            assert "north-pass" not in browser.run(f"{field}.value")
            browser.run(f"{field}.setSelectionRange({field}.value.length, {field}.value.length)")
            browser.type("#config-text", 'hots = "10.0.0.9"\n')
            browser.click("#config-check")
            browser.wait("document.querySelectorAll('#config-problems button').length === 1")
            assert "Line 7" in browser.text("#config-problems") and "did you mean" in browser.text("#config-problems")
            browser.click("#config-problems button")
            assert browser.run(f"{field}.value.slice({field}.selectionStart, {field}.selectionEnd)").startswith("hots")
            shoot(browser, "config")
            browser.type("#config-text", 'host = "10.0.0.9"')
            browser.run("document.getElementById('config-watch').value = 5")
            browser.click("#config-apply")
            browser.wait("document.getElementById('config-dialog').open")
            assert "Changed: north" in browser.text("#config-difference")
            shoot(browser, "apply")
            browser.click("#config-dialog button[value=apply]")
            browser.wait("document.getElementById('config-state').textContent.startsWith('Applied. ')")
            browser.run("window.confirm = () => true")

        await browse(door, work)
        assert door.file.read_text() == TEXT + 'host = "10.0.0.9"\n'
