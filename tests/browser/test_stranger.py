"""A person new to it provisions a first real device through the UI alone."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, Locator, Window, expect
from tests.support.server import PASSWORD, USERNAME, CoreProcess

LONGEST_S = 120.0
# What people take, by the keystroke-level model: to think, point and click; to type a character; to switch windows.
CLICK_S, CHARACTER_S, SWITCH_S, READ_S = 1.35 + 1.1 + 0.2, 0.28, 2.0, 5.0


class Stranger:
    """Does what the pages say, and counts what it costs a person."""

    def __init__(self, window: Window, folder: Path) -> None:
        self._folder = folder
        self.page = window.page
        self.steps: list[str] = []
        self.spent_s = 0.0

    def click(self, what: Locator, name: str) -> None:
        what.click()
        self._spend(f"click {name}", CLICK_S)

    def type(self, what: Locator, text: str, name: str) -> None:
        what.fill(text)
        self._spend(f"type {name}", CLICK_S + CHARACTER_S * len(text))

    def read(self, name: str) -> None:
        self._spend(f"read {name}", READ_S)

    def copy_and_run(self, buttons: Locator) -> str:
        """Takes one command after the other from the page into a terminal; what they print."""
        script = []
        for button in buttons.all():
            button.click()
            script.append(str(self.page.evaluate("navigator.clipboard.readText()")))
            self._spend("copy a command into the terminal", CLICK_S + 2 * SWITCH_S)
        command = ["bash", "-c", "\n".join(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, cwd=self._folder)
        return done.stdout + done.stderr

    def _spend(self, step: str, took_s: float) -> None:
        self.steps.append(step)
        self.spent_s += took_s


@pytest.fixture
def empty_core(chromium: Chromium, tmp_path: Path) -> Iterator[CoreProcess]:
    process = CoreProcess(tmp_path / "data").start()
    yield process
    chromium.call(chromium.close_windows)
    process.stop()


def test_first_device(
    chromium: Chromium, empty_core: CoreProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the login of an empty core over wizard and command to a device that sends, in under two minutes."""
    began_s = time.monotonic()
    window = chromium.open(empty_core.http)
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page, stranger = window.page, Stranger(window, tmp_path)
    page.goto("/")
    stranger.type(page.get_by_label("User name"), USERNAME, "the user name")
    stranger.type(page.get_by_label("Password"), PASSWORD, "the password")
    stranger.click(page.get_by_role("button", name="Log in"), "Log in")
    stranger.read("the empty overview")
    window.check("stranger-overview")
    stranger.click(page.get_by_role("link", name="Make a device profile"), "Make a device profile")
    stranger.type(page.get_by_label(re.compile("^Name")), "thermometer", "the profile's name")
    stranger.click(page.get_by_role("button", name=re.compile("^Create now")), "Create now")
    if page.get_by_role("link", name="Connect a device").count():
        stranger.click(page.get_by_role("link", name="Connect a device").first, "Connect a device")
    stranger.read("how a device connects")
    window.check("stranger-connect")
    stranger.click(page.get_by_role("button", name="Put the secret in"), "Put the secret in")
    name = page.get_by_label("Name of the device").input_value()
    printed = stranger.copy_and_run(page.get_by_role("button", name=re.compile(r"^Copy: \d")))
    assert "SUCCESS" in printed, printed
    expect(page.get_by_role("listitem").filter(has_text=name)).to_contain_text("let in")
    stranger.read("that the device has come in")
    window.check("stranger-connected")
    stranger.click(page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices"), "Devices")
    stranger.click(page.get_by_role("link", name=name), "the device")
    expect(page.get_by_text("confirmed", exact=True)).to_be_visible()
    stranger.click(page.get_by_role("link", name="Telemetry"), "Telemetry")
    expect(page.get_by_role("rowheader", name="temperature")).to_be_visible()
    window.check("stranger-device")
    run_s = time.monotonic() - began_s
    with capsys.disabled():
        print(
            f"\nA first device: {len(stranger.steps)} steps, {stranger.spent_s:.0f} s for a person"
            f" (keystroke-level model), {run_s:.0f} s for the test: {'; '.join(stranger.steps)}"
        )
    assert stranger.spent_s < LONGEST_S
    assert window.problems == []
