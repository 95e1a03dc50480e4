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

    def copy_and_run(self, what: Locator) -> str:
        """Copies a command from the page into a shell of an empty folder; what it prints."""
        command = what.inner_text()
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True, cwd="/tmp"
        )
        self._spend("copy the command into a terminal", CLICK_S + 2 * SWITCH_S)
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
    if page.get_by_role("button", name="Put the secret in").count():
        stranger.click(page.get_by_role("button", name="Put the secret in"), "Put the secret in")
    commands = page.locator("figure.snippet pre")
    printed = stranger.copy_and_run(commands.first)
    assert "SUCCESS" in printed, printed
    command = "\n".join(commands.all_inner_texts())
    found = re.search(r'"deviceName": "([^"]+)"', command)
    assert found is not None
    stranger.click(page.get_by_role("link", name=re.compile("^Watch it come in")), "Watch it come in")
    expect(page.get_by_role("listitem").filter(has_text=found[1])).to_contain_text("let in")
    window.check("stranger-test")
    stranger.click(page.get_by_role("navigation", name="Main").get_by_role("link", name="Devices"), "Devices")
    stranger.click(page.get_by_role("link", name=found[1]), "the device")
    stranger.read("the device")
    window.check("stranger-device")
    run_s = time.monotonic() - began_s
    with capsys.disabled():
        print(
            f"\nA first device: {len(stranger.steps)} steps, {stranger.spent_s:.0f} s for a person"
            f" (keystroke-level model), {run_s:.0f} s for the test: {'; '.join(stranger.steps)}"
        )
    assert stranger.spent_s < LONGEST_S
    assert window.problems == []
