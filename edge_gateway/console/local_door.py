"""The gateway's local port: the page for people on site, and the door of the commands `status`, `tap`, `apply`.

Everything but the page's files, the log-in and `/healthz` is for those who know the token or the PIN.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from werkzeug.exceptions import HTTPException

from edge_gateway.config import Config, ConfigError, ConfigProblem
from edge_gateway.console import page_text
from edge_gateway.console.access import Access, TooSoon, WrongPin
from edge_gateway.console.door_http import (
    COOKIE,
    BoundedFactory,
    Refused,
    answered,
    argument,
    body_of,
    check_origin,
    number,
    refuse,
    session_of,
)
from edge_gateway.console.live_tap import Filter, LiveTap
from edge_gateway.console.masking import CannotMask
from edge_gateway.console.metrics import CONTENT_TYPE, prometheus
from edge_gateway.console.rollout import Rollout, difference
from edge_gateway.model import Health, Json, Reading

MAX_TAPS = 20
MAX_PAGE = 1_000
MAX_WATCH_S = 3_600
STORES_WITHIN_S = 5.0
HEALTH_HOLDS_S = 2.0
RATE_OVER = 10  # seconds
PAGE_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "common.js": ("common.js", "text/javascript; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "views.js": ("views.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}

log = Logger()


class RunningGateway(Protocol):
    """What the door asks of the gateway; `service.Gateway` is one."""

    config: Config
    name: str

    def status(self) -> dict[str, Any]: ...

    def devices(self) -> list[dict[str, Any]]: ...

    def tap(self, listener: Callable[[str, Reading], None]) -> Callable[[], None]: ...

    async def apply(self, config: Config) -> dict[str, list[str]]: ...


class LogIn(msgspec.Struct, forbid_unknown_fields=True):
    pin: str = ""


class Check(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class Apply(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Without `text` the file is read again. `based_on` is the version of the file that was edited."""

    watch_s: float = 60.0
    dry_run: bool = False
    text: str | None = None
    based_on: str = ""


async def _stores() -> bool:
    return True


class LocalDoor:
    """See the module. `load_config()` reads the configuration's file, `check_text(text)` reads a text as if it stood
    there, both with environment and raising ConfigError; without `check_text` and `config_path` the page cannot check
    and edit. `is_storing()` is false, or late, when the spool does not take records."""

    app = Klein()

    def __init__(
        self,
        *,
        gateway: RunningGateway,
        data_dir: Path,
        load_config: Callable[[], Config],
        reactor: Any,  # mypy reads nothing from zope interfaces
        check_text: Callable[[str], Config] | None = None,
        config_path: Path | None = None,
        is_storing: Callable[[], Awaitable[bool]] = _stores,
        kept: Callable[[], None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gateway = gateway
        self._data_dir = data_dir
        self._load_config = load_config
        self._check_text = check_text
        self._config_path = config_path
        self._is_storing = is_storing
        self._kept = kept  # called when a new configuration has proved itself and is the file's
        self._reactor = reactor
        self.access = Access(data_dir, reactor.seconds)
        self.rollout = Rollout(gateway, seconds=reactor.seconds, sleep=sleep)
        self._taps: set[LiveTap] = set()
        self._rates: deque[tuple[float, int, int]] = deque(maxlen=RATE_OVER + 1)
        self._timer: Any = None
        self._factory: BoundedFactory | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._healthy_until_s = 0.0
        self._pages: dict[str, tuple[bytes, str]] = {}

    def open(self) -> BoundedFactory:
        """What serves it, from now on. Raises: OSError when its files cannot be read."""
        self._read_pages()
        self.access.open()
        self._factory = BoundedFactory(self.app.resource())
        self._sample()
        return self._factory

    async def stop(self) -> None:
        """Live views end, a watch ends without a verdict, connections are closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for tap in list(self._taps):
            tap.stop()
        for task in list(self._tasks):
            task.cancel()
        if self._factory is not None:
            for protocol in list(self._factory.protocols):
                protocol.abortConnection()

    def _read_pages(self) -> None:
        folder = Path(__file__).parent / "local_page"
        self._pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE_FILES.items()}

    def _deferred(self, work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Runs it in the loop; who stops the door stops it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Deferred.fromFuture(task)

    def _sample(self) -> None:
        """Once a second, for the rates."""
        self._timer = self._reactor.callLater(1.0, self._sample)
        status = self._gateway.status()
        readings = sum(one.get("readings", 0) for one in status.get("connectors", {}).values())
        self._rates.append((self._reactor.seconds(), readings, status.get("sent", 0)))

    # -- the page ---------------------------------------------------------------------------------

    @app.handle_errors(HTTPException)
    def _not_here(self, request: Any, failure: Any) -> bytes:
        return refuse(request, Refused(failure.value.code, "there is nothing of this name here"))

    @app.route("/", methods=["GET"])
    def _index(self, request: Any) -> bytes:
        return self._page(request, "")

    @app.route("/<name>", methods=["GET"])
    def _file(self, request: Any, name: str) -> bytes:
        return self._page(request, name)

    def _page(self, request: Any, name: str) -> bytes:
        if name not in self._pages:
            return refuse(request, Refused(404, "there is nothing of this name here"))
        body, kind = self._pages[name]
        request.setHeader("Content-Type", kind)
        return body

    @app.route("/api/login", methods=["POST"])
    @answered(is_open=True)
    def _log_in(self, request: Any) -> Json:
        check_origin(request)
        try:
            session = self.access.log_in(body_of(request, LogIn).pin[:100])
        except TooSoon as error:
            text = f"too many wrong PINs; wait {error.wait_s:.0f} s"
            raise Refused(429, text, retry_after_s=error.wait_s) from None
        except WrongPin as error:
            log.warn("wrong PIN at the local page, from {address}", address=request.getClientAddress().host)
            wait = f"; wait {error.wait_s:.0f} s before the next try" if error.wait_s else ""
            raise Refused(403, f"wrong PIN; `edge-gateway status` on the gateway shows it{wait}") from None
        request.addCookie(COOKIE, session, path=b"/", httpOnly=True, sameSite=b"strict")
        return {"name": self._gateway.name}

    @app.route("/api/logout", methods=["POST"])
    @answered()
    def _log_out(self, request: Any) -> Json:
        self.access.log_out(session_of(request))
        request.addCookie(COOKIE, b"", path=b"/", max_age=b"0", httpOnly=True, sameSite=b"strict")
        return {}

    # -- what is asked ----------------------------------------------------------------------------

    @app.route("/healthz", methods=["GET"])
    @answered(is_open=True)
    def _healthz(self, request: Any) -> Any:
        return self._deferred(self._health())

    async def _health(self) -> str:
        """One question to the spool in a while, however often others ask."""
        if self._reactor.seconds() >= self._healthy_until_s:
            try:
                is_storing = await asyncio.wait_for(self._is_storing(), STORES_WITHIN_S)
            except TimeoutError:
                is_storing = False
            if not is_storing:
                raise Refused(503, "the spool does not store; look at the disk and the log")
            self._healthy_until_s = self._reactor.seconds() + HEALTH_HOLDS_S
        return "ok\n"

    @app.route("/api/status", methods=["GET"])
    @answered()
    def _status(self, request: Any) -> Json:
        return self.status()

    def status(self) -> dict[str, Any]:
        """The gateway's status, without samples, with rates, kinds and the newest rollout."""
        status = dict(self._gateway.status())
        status.pop("samples", None)
        seen: dict[str, dict[str, Any]] = status.get("connectors", {})
        connectors = {}
        for table in self._gateway.config.connectors:
            one = {key: value for key, value in seen.get(table.name, {}).items() if key != "samples"}
            if not getattr(table.settings, "enabled", True):
                one |= {"health": Health.STOPPED.value, "reason": "enabled = false in the configuration"}
            connectors[table.name] = {"kind": table.kind, "health": Health.STARTING.value, "reason": "", **one}
        return status | {"connectors": connectors, "rates": self._per_second(), "apply": self.rollout.shown()}

    def _per_second(self) -> dict[str, float]:
        first, last = self._rates[0], self._rates[-1]
        seconds = last[0] - first[0]
        if seconds <= 0:
            return {"inPerS": 0.0, "outPerS": 0.0}
        return {
            "inPerS": round(max(0, last[1] - first[1]) / seconds, 1),
            "outPerS": round(max(0, last[2] - first[2]) / seconds, 1),
        }

    @app.route("/api/samples", methods=["GET"])
    @answered()
    def _samples(self, request: Any) -> Json:
        status = self._gateway.status()
        samples = [{"connector": "", **one} for one in status.get("samples", [])]
        for name, connector in status.get("connectors", {}).items():
            samples += [{"connector": name, **one} for one in connector.get("samples", [])]
        return {"samples": sorted(samples, key=lambda one: one.get("at", 0), reverse=True)[:200]}

    @app.route("/api/devices", methods=["GET"])
    @answered()
    def _devices(self, request: Any) -> Json:
        page = number(request, "page", 0, 0, 10**9)
        size = number(request, "pageSize", 100, 1, MAX_PAGE)
        sought, connector = argument(request, "search").casefold(), argument(request, "connector")
        chosen = [
            one
            for one in self._gateway.devices()
            if (not connector or one["connector"] == connector)
            and (not sought or any(sought in str(one[key]).casefold() for key in ("name", "upstreamName", "type")))
        ]
        chosen.sort(key=lambda one: str(one["name"]))
        return {"total": len(chosen), "page": page, "devices": chosen[page * size : (page + 1) * size]}

    @app.route("/api/metrics", methods=["GET"])
    @answered()
    def _metrics(self, request: Any) -> str:
        request.setHeader("Content-Type", CONTENT_TYPE)
        return prometheus(self._gateway.status() | {"connectors": self.status()["connectors"]})

    @app.route("/api/tap", methods=["GET"])
    @answered()
    def _tap(self, request: Any) -> Deferred[bytes]:
        if len(self._taps) >= MAX_TAPS:
            raise Refused(503, f"{MAX_TAPS} live views are open already; close one", retry_after_s=10)
        chosen = Filter(argument(request, "device")[:255], argument(request, "connector")[:255])
        tap = LiveTap(request, chosen, reactor=self._reactor, wall_ms=lambda: time.time_ns() // 1_000_000)
        self._taps.add(tap)
        end = self._gateway.tap(tap.heard)

        def ended(result: Any) -> Any:
            end()
            self._taps.discard(tap)
            tap.stop()
            return result

        tap.ended.addBoth(ended)
        request.notifyFinish().addErrback(lambda _gone: tap.stop())
        tap.start()
        return tap.ended

    # -- the configuration ------------------------------------------------------------------------

    @app.route("/api/config", methods=["GET"])
    @answered()
    def _config(self, request: Any) -> Json:
        path = self._editable()
        try:
            shown = page_text.read(path)
        except CannotMask as error:
            raise Refused(409, str(error)) from None
        except OSError as error:
            raise Refused(409, f"cannot read {path}: {error.strerror}") from None
        return {"file": str(path), "text": shown.text, "version": shown.version, "isMasked": shown.is_masked}

    @app.route("/api/check", methods=["POST"])
    @answered()
    def _check(self, request: Any) -> Json:
        self._editable()
        try:
            config = self._edited(body_of(request, Check).text)[0]
        except ConfigError as error:
            return {"ok": False, "problems": _shown(error.problems), "hints": _shown(error.hints)}
        connectors = len(config.connectors)
        return {"ok": True, "problems": [], "hints": _shown(config.hints), "connectors": connectors}

    def _editable(self) -> Path:
        """Raises: Refused."""
        if self._config_path is None or self._check_text is None:
            raise Refused(409, "the gateway runs without a configuration file; start it with --config FILE")
        return self._config_path

    def _edited(self, text: str) -> tuple[Config, str]:
        """The configuration that a text from the page means, and the text with its secrets. Raises: ConfigError."""
        path = self._editable()
        assert self._check_text is not None  # _editable has seen to it
        whole = page_text.with_secrets(text, path)
        unknown = page_text.left_masks(whole)
        if unknown:
            raise ConfigError(unknown, (), path.name)
        return self._check_text(whole), whole

    @app.route("/api/apply", methods=["GET"])
    @answered()
    def _applied(self, request: Any) -> Json:
        return self.rollout.shown()

    @app.route("/api/apply", methods=["POST"])
    @answered()
    def _apply(self, request: Any) -> Json:
        wish = body_of(request, Apply)
        if not 0 <= wish.watch_s <= MAX_WATCH_S:
            raise Refused(400, f"watchS must be from 0 to {MAX_WATCH_S} seconds")
        if self.rollout.is_running and not wish.dry_run:
            raise Refused(409, "another configuration is on trial; wait for its end")
        try:
            new, keep = self._wished(wish)
        except ConfigError as error:
            text = "the configuration cannot be used; nothing was changed"
            raise Refused(422, text, problems=_shown(error.problems), hints=_shown(error.hints)) from None
        if wish.dry_run:
            return {"difference": difference(self._gateway.config, new), "hints": _shown(new.hints)}
        old = self.rollout.begin(new)

        def proved() -> None:
            keep()
            self._kept()

        task = self._deferred(self.rollout.run(old, new, wish.watch_s, proved))
        task.addErrback(
            lambda failure: (
                None if failure.check(asyncio.CancelledError) else log.failure("the rollout ended by an error", failure)
            )
        )
        request.setResponseCode(202)
        return self.rollout.shown() | {"hints": _shown(new.hints)}

    def _wished(self, wish: Apply) -> tuple[Config, Callable[[], None]]:
        """The configuration, and what makes it the one of the next start. Raises: ConfigError, Refused."""
        if wish.text is None:
            return self._load_config(), lambda: None
        path = self._editable()
        version = page_text.version_of(path)
        if wish.based_on != version:
            raise Refused(409, "the file on the gateway was changed meanwhile; load it again")
        new, whole = self._edited(wish.text)
        return new, lambda: page_text.replace(path, whole, version)


def _shown(problems: Sequence[ConfigProblem]) -> list[Json]:
    return [{"line": one.line, "column": one.column, "text": one.text} for one in problems]
