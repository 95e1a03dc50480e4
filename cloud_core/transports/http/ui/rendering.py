"""Templates: Jinja2, compiled when they are first shown, everything escaped; and how times and numbers read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup, escape
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloud_core.transports.http.ui.assets import Assets
from cloud_core.transports.http.ui.outcomes import said

log = Logger()
_FOLDER = Path(__file__).parent / "templates"
_SPANS_S = ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class _Compiled(BytecodeCache):
    """What templates were compiled to, by their content: once for all ports of a process."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        known = self._code.get(f"{bucket.key} {bucket.checksum}")
        if known is not None:
            bucket.bytecode_from_string(known)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[f"{bucket.key} {bucket.checksum}"] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


class Templates:
    """Renders `templates/*.html`."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, auto_reload=False,
            trim_blocks=True, lstrip_blocks=True, bytecode_cache=_COMPILED,
        )  # fmt: skip
        self._environment.globals |= {"static": assets.url, "said": said}
        self._environment.filters |= {"when": when, "ago": ago, "number": number, "bytes": in_bytes}

        self._are_compiled = False

    def render(self, name: str, /, **context: Any) -> str:
        if not self._are_compiled:
            self._are_compiled = True
            deferToThread(self.compile_all).addErrback(_not_compiled)
        return self._environment.get_template(name).render(**context)

    def compile_all(self) -> None:
        """In a thread, when the first page is shown: a page with its parts takes up to 70 ms, which would hold up
        devices. Whoever never opens a page pays nothing."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)


def _not_compiled(failure: Failure) -> None:
    """Each is compiled when it is shown, then, which tells the fault to whoever looks."""
    log.failure("The templates of the pages could not be compiled ahead", failure=failure)


def when(ms: int | None) -> Markup:
    """A time since the epoch in ms, in UTC; a script puts it into the reader's own time zone."""
    if not ms:
        return Markup('<span class="quiet">never</span>')
    at = datetime.fromtimestamp(ms / 1000, UTC)
    text = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(timespec="milliseconds"), text, text)


def ago(ms: int | None) -> Markup:
    """As `when`, told as a distance from now; the time itself is in its title."""
    if not ms:
        return Markup('<span class="quiet">never</span>')
    at = datetime.fromtimestamp(ms / 1000, UTC)
    title = at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" data-ago title="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"), title, distance(ms / 1000 - time.time())
    )


def distance(seconds: float) -> str:
    """`3 min ago`, `in 2 d`, `now`."""
    size = abs(seconds)
    for span, unit in _SPANS_S:
        if size >= span:
            text = f"{int(size // span)} {unit}"
            return f"in {text}" if seconds > 0 else f"{text} ago"
    return "now"


def number(value: float | None) -> Markup:
    """With thin spaces between thousands."""
    if value is None:
        return Markup("–")
    return escape(f"{value:,.10g}".replace(",", "\u202f"))


def in_bytes(value: float) -> str:
    """`512 B`, `1.5 GiB`."""
    size, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.0f} {units[0]}" if size >= 100 or units[0] == "B" else f"{size:.1f} {units[0]}"
