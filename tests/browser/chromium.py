"""Debian's Chromium, driven from a thread of its own: the test's own thread has a running loop."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

try:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect, sync_playwright
except ImportError:  # the tests are skipped then, or fail where all is required
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

__all__ = ["Chromium", "Locator", "Page", "Window", "expect"]

T = TypeVar("T")

_TOO_WIDE = """() => {
  const root = document.documentElement;
  if (root.scrollWidth <= innerWidth) return [];
  const ends = (one) => one.getBoundingClientRect().right;
  const wide = [...document.querySelectorAll("body *")].filter((one) => ends(one) > innerWidth + 1);
  return [`${root.scrollWidth} px`, ...wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 150))];
}"""

WAIT_MS = 10_000
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_OVERLAPPING = """() => {
  const found = [], seen = [];
  for (const one of document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")) {
    if (!one.checkVisibility()) continue;
    const edge = one.closest(".scroll")?.getBoundingClientRect();
    for (const box of one.getClientRects()) {
      const left = Math.max(box.left, edge?.left ?? 0), right = Math.min(box.right, edge?.right ?? innerWidth);
      if (right - left < 4 || box.height < 4) continue;
      for (const [other, otherLeft, otherRight, otherBox] of seen) {
        if (other === one || other.contains(one) || one.contains(other)) continue;
        const across = Math.min(right, otherRight) - Math.max(left, otherLeft);
        const down = Math.min(box.bottom, otherBox.bottom) - Math.max(box.top, otherBox.top);
        if (across > 3 && down > 3) found.push(`${other.outerHTML.slice(0, 90)} under ${one.outerHTML.slice(0, 90)}`);
      }
      seen.push([one, left, right, box]);
    }
  }
  return found.slice(0, 5);
}"""


def artefacts() -> Path:
    """Where screenshots and traces go: never into the repository."""
    given = os.environ.get("MUSTER_ARTEFACTS") or str(Path(tempfile.gettempdir()) / "muster-artefacts")
    folder = Path(given)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Chromium:
    """One browser for all tests. Everything of playwright is called within `call`."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._playwright: Playwright
        self._browser: Browser
        self.windows: list[Window] = []
        self.logins: dict[tuple[str, str], Any] = {}

    def call(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        """Runs `work` in the browser's thread and waits for it."""
        return self._thread.submit(work, *args, **options).result()

    def start(self) -> None:
        expect.set_options(timeout=WAIT_MS)
        self._playwright = sync_playwright().start()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._browser = self._playwright.chromium.launch(executable_path=self._program, args=sandbox)

    def stop(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, base_url: str, *, has_scripts: bool = True, **options: Any) -> Window:
        """A window without cookies of others."""
        context = self._browser.new_context(
            base_url=base_url, java_script_enabled=has_scripts, locale="en-GB", timezone_id="UTC",
            reduced_motion="reduce", **{"viewport": DESKTOP, "color_scheme": "light", **options},
        )  # fmt: skip
        window = Window(context)
        self.windows.append(window)
        return window

    def open_as(self, base_url: str, username: str, password: str, **options: Any) -> Window:
        """Logged in; the form is filled in once for each user."""
        known = self.logins.get((base_url, username))
        if known is None:
            window = self.open(base_url)
            window.log_in(username, password)
            known = self.logins[base_url, username] = window.context.storage_state()
            window.close()
        return self.open(base_url, storage_state=known, **options)

    def close_windows(self) -> None:
        for window in self.windows:
            window.close()
        self.windows.clear()

    def keep(self, window: Window) -> Window:
        """For several tests: it stays open when a test ends."""
        self.windows.remove(window)
        return window


class Window:
    """A tab in a context of its own, which remembers what went wrong in it and how much was transferred."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        context.set_default_timeout(WAIT_MS)
        self.page: Page = context.new_page()
        self.problems: list[str] = []
        self.transferred_bytes = 0
        self.page.on("console", lambda one: self._hear(one.type, one.text))
        self.page.on("pageerror", lambda error: self._hear("error", str(error)))
        self._expected: list[str] = []
        self._is_counting = False

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(re.search(one, text) for one in self._expected):
            self.problems.append(f"{kind}: {text}")

    def expect_status(self, status: int) -> None:
        """A refused form's status is on the console, which is right."""
        self._expected.append(rf"Failed to load resource.* status of {status} ")

    def log_in(self, username: str, password: str) -> None:
        self.page.goto("/ui/login")
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(re.compile(r"/ui/(?!login)"))

    def open_live(self, path: str) -> None:
        """Opens a page and waits until it hears what happens."""
        with self.page.expect_response(lambda answer: "/ui/events" in answer.url):
            self.page.goto(path)

    @contextmanager
    def without_loading_again(self) -> Iterator[None]:
        """The document is the same before and after."""
        self.page.evaluate("() => { window.isTheSame = true; }")
        yield
        assert self.page.evaluate("() => window.isTheSame === true"), "the page was loaded again"

    def count_bytes(self) -> None:
        """From now on, and without the cache: what a page costs somebody who opens it for the first time."""
        if self._is_counting:
            self.transferred_bytes = 0
            return
        self._is_counting = True
        wire = self.context.new_cdp_session(self.page)
        wire.send("Network.enable")
        wire.send("Network.setCacheDisabled", {"cacheDisabled": True})

        def arrived(event: dict[str, Any]) -> None:
            self.transferred_bytes += int(event["encodedDataLength"])

        wire.on("Network.loadingFinished", arrived)

    def picture(self, name: str) -> None:
        self.page.screenshot(path=artefacts() / f"{name}.png", full_page=True)

    def violations(self, *rules: str) -> list[str]:
        """What axe finds, one line each; by these rules alone where some are given."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(Axe().axe_script)
        options: dict[str, Any] = {"resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        found = self.page.evaluate("options => axe.run(options).then(found => found.violations)", options)
        return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def too_wide(self) -> list[str]:
        """What makes the page wider than the window."""
        found: list[str] = self.page.evaluate(_TOO_WIDE)
        return found

    def overlapping(self) -> list[str]:
        """What people operate, and something else of that kind lies over it."""
        found: list[str] = self.page.evaluate(_OVERLAPPING)
        return found

    def check(self, name: str, *rules: str) -> None:
        """Nothing for axe to find, nothing too wide or over another, nothing on the console; a picture is kept."""
        self.picture(name)
        for found in (self.violations(*rules), self.too_wide(), self.overlapping(), self.problems):
            assert not found, "\n".join([name, *found])

    def close(self) -> None:
        with suppress(Exception):
            self.context.close()
