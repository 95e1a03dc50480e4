"""The README's pictures, taken from the running product: `python -m tests.browser.screenshots OUT_DIR`."""

from __future__ import annotations

import io
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.browser.chromium import PROGRAMS, Chromium, Page
from tests.browser.fleet import Fleet
from tests.support.server import CoreProcess

MAX_BYTES = 80 * 1024
COLOURS = 128
COUNTED_MS = 120_000
USERNAME, PASSWORD = "kim@example.com", "correct-horse-battery"
USUAL_PORT = 8080


def overview(page: Page, fleet: Fleet) -> None:
    page.goto("/ui/")
    counted = page.get_by_role("link", name=re.compile("^Active: [1-9]"))
    counted.wait_for(timeout=COUNTED_MS)  # the devices are counted now and then, some at a time


def connect(page: Page, fleet: Fleet) -> None:
    page.goto(f"/ui/profiles/{fleet.ids['water-meter']}/connect")


def device(page: Page, fleet: Fleet) -> None:
    page.goto(f"/ui/devices/{fleet.ids['device']}/telemetry?key=flow")


def plan(page: Page, fleet: Fleet) -> None:
    page.goto(f"/ui/imports/{fleet.ids['import']}")


PICTURES: dict[str, Callable[[Page, Fleet], None]] = {
    "overview": overview, "connect": connect, "device": device, "import": plan,
}  # fmt: skip


def take(out: Path, browser: Chromium, fleet: Fleet) -> None:
    """Raises: ValueError, where a picture is too large."""
    out.mkdir(parents=True, exist_ok=True)
    window = browser.open_as(fleet.core.http, USERNAME, PASSWORD)
    for name, show in PICTURES.items():
        show(window.page, fleet)
        picture = smaller(window.page.screenshot())
        if len(picture) > MAX_BYTES:
            raise ValueError(f"{name}.png has {len(picture)} bytes, above {MAX_BYTES}; is Pillow installed?")
        (out / f"{name}.png").write_bytes(picture)
        print(f"{name}.png  {len(picture) / 1024:.0f} KiB")


def smaller(picture: bytes) -> bytes:
    """With a palette, where Pillow is installed."""
    try:
        from PIL import Image
    except ImportError:
        return picture
    made = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return made.getvalue()


def usual_port() -> int:
    """The port of the README, where it is free; 0, for any, where it is not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m tests.browser.screenshots OUT_DIR")
    program = next((found for one in PROGRAMS if (found := shutil.which(one))), None)
    if program is None:
        sys.exit("chromium is not installed (Debian package chromium)")
    with tempfile.TemporaryDirectory(prefix="muster-pictures-") as folder:
        core = CoreProcess(Path(folder) / "data")
        core.http_port = usual_port()
        core.start()
        fleet, browser = Fleet(core), Chromium(program)
        try:
            fleet.fill()
            user = {"email": USERNAME, "authority": "TENANT_ADMIN", "role": "ADMINISTRATOR", "password": PASSWORD}
            core.rest.post("/api/user", user)
            browser.call(browser.start)
            try:
                browser.call(take, Path(sys.argv[1]), browser, fleet)
            finally:
                browser.call(browser.stop)
        finally:
            fleet.close()
            core.stop()


if __name__ == "__main__":
    main()
