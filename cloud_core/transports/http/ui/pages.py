"""What all pages share: who looks, the frame around them, errors that people can read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import quote, urlencode

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.model import Page
from cloud_core.transports.endpoints import Endpoints
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.errors import refusal_body, retry_after
from cloud_core.transports.http.ui.navigation import sections_for
from cloud_core.transports.http.ui.rendering import Templates
from cloud_core.transports.http.ui.visits import (
    PATH,
    Form,
    Visitor,
    forget,
    form_of,
    notice_of,
    notify,
    theme_of,
    visitor_of,
)
from shared.errors import NotAuthenticated, NotAuthorized, PlatformError

log = Logger()
PAGE_SIZE, MAX_PAGE = 25, 1_000_000
BY_TITLE = ("title", "createdTime")  # what lists of titles are sorted by
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the browser goes next; `notice` is told there."""

    url: str
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """What every class of pages is made with."""

    admin: AdminApi
    templates: Templates
    endpoints: Endpoints


class Pages:
    """Base of the classes of pages, each with a Klein app made by `pages_app`."""

    def __init__(self, shared: Shared) -> None:
        self._admin = shared.admin
        self._templates = shared.templates
        self._endpoints = shared.endpoints

    async def visitor(self, request: Any, act: Act) -> Visitor:
        """Who looks at a page that needs `act`. Raises: NotAuthenticated, NotAuthorized."""
        visitor = await visitor_of(request, self._admin)
        request.visitor = visitor  # for the frame of an error page
        if not visitor.may(act):
            raise NotAuthorized("Your role does not allow this")
        return visitor

    async def sender(self, request: Any, act: Act) -> tuple[Visitor, Form]:
        """Who sends a form, and its fields. Raises: as `visitor`; MalformedRequest, RequestTooLarge."""
        visitor = await self.visitor(request, act)
        return visitor, await form_of(request, visitor)

    def show(self, request: Any, visitor: Visitor, template: str, *, status: int = 200, **context: Any) -> str:
        """A page within the frame. `title` is its name in the tab."""
        request.setResponseCode(status)
        return self._templates.render(
            template, visitor=visitor, sections=sections_for(visitor), badges=self._badges(visitor),
            path=text_of(request.path), url=text_of(request.uri), theme=visitor.theme, notice=notice_of(request),
            **context,
        )  # fmt: skip

    def _badges(self, visitor: Visitor) -> dict[str, int]:
        """Address of a section -> how many things wait there for this visitor; what is known without waiting."""
        waiting = self._admin.overview.waiting_known(visitor.operator) if visitor.may(Act.WRITE_DEVICES) else None
        return {f"{PATH}/provisioning": waiting.total} if waiting is not None and waiting.total else {}

    def show_bare(self, request: Any, template: str, *, status: int = 200, **context: Any) -> str:
        """A page for somebody who is not logged in."""
        request.setResponseCode(status)
        return self._templates.render(
            template, visitor=None, sections=(), path=text_of(request.path), url=PATH, theme=theme_of(request),
            notice=notice_of(request), **context,
        )  # fmt: skip

    def show_fault(self, request: Any, status: int, text: str) -> str:
        """An error as a page, within the frame where we know who looks."""
        request.responseHeaders.removeHeader("content-disposition")  # of a file that there is none of
        visitor = getattr(request, "visitor", None)
        if visitor is None:
            return self.show_bare(request, "fault.html", status=status, title="Not possible", text=text)
        return self.show(request, visitor, "fault.html", status=status, title="Not possible", text=text)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


Shown = str | bytes | Redirect
"""HTML; bytes whose headers the route has set; or where to go next."""


def page(route: Callable[..., Coroutine[Any, Any, Shown]]) -> Callable[..., Any]:
    """Turns what a route returns into a response, and its refusals into pages."""

    @wraps(route)
    def shown(self: Pages, request: Any, *args: Any, **kwargs: Any) -> Any:
        async def run() -> bytes:
            body = _answered(request, await _shown(self, request, route(self, request, *args, **kwargs)))
            request.setHeader("Content-Length", str(len(body)))
            return body

        for name, value in HEADERS.items():
            request.setHeader(name, value)
        return Deferred.fromCoroutine(run())

    return shown


async def _shown(pages: Pages, request: Any, called: Coroutine[Any, Any, Shown]) -> Shown:
    try:
        return await called
    except NotAuthenticated:
        return _to_login(request)
    except PlatformError as error:
        status, _ = refusal_body(error)
        wait_s = retry_after(error)
        if wait_s is not None:
            request.setHeader("Retry-After", str(wait_s))
        return pages.show_fault(request, status, str(error) or error.public_text)
    except CancelledError:  # the browser has gone
        raise
    except Exception:
        log.failure("A page failed")
        return pages.show_fault(request, 500, "Internal error; the log of the core has the details.")


def _to_login(request: Any) -> Redirect:
    """A page is shown after the login; a form has to be filled in once more."""
    forget(request)
    if request.method == b"GET":
        return Redirect(f"{PATH}/login?next={quote(text_of(request.uri))}")
    return Redirect(f"{PATH}/login", "Your login has ended; log in again.")


def _answered(request: Any, shown: Shown) -> bytes:
    if isinstance(shown, bytes):
        return shown
    request.setHeader("Content-Type", "text/html; charset=utf-8")
    if isinstance(shown, str):
        return shown.encode()
    request.setResponseCode(303)
    request.setHeader("Location", shown.url)
    if shown.notice:
        notify(request, shown.notice)
    return b""


def pages_app() -> Klein:
    """For a class of pages: addresses that are none of its own are told so in a page."""
    app = Klein()

    @app.handle_errors(NotFound, MethodNotAllowed)
    @page
    async def no_page(self: Pages, request: Any, failure: Failure) -> Shown:
        await self.visitor(request, Act.USE_OWN_LOGIN)
        error = failure.value
        assert isinstance(error, HTTPException), "klein's router raises nothing else"
        return self.show_fault(request, error.code or 404, "There is no such page.")

    return app


# -- lists -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pager:
    """A part of a list and the way to its other parts; page numbers count from 1 for people."""

    page: Page
    total: int
    path: str
    parameters: Mapping[str, str]

    @property
    def first(self) -> int:
        return min(self.total, self.page.page * self.page.size + 1)

    @property
    def last(self) -> int:
        return min(self.total, (self.page.page + 1) * self.page.size)

    @property
    def before(self) -> str | None:
        return self._at(self.page.page - 1) if self.page.page > 0 else None

    @property
    def after(self) -> str | None:
        return self._at(self.page.page + 1) if self.last < self.total else None

    def sorted_by(self, name: str) -> str:
        """Address of the list in the order of `name`; of the other direction where it is in that order already."""
        turns = self.page.sort_property == name and not self.page.descending
        order = {"sort": name, "order": "DESC" if turns else "ASC"}
        return f"{self.path}?{urlencode(self._kept() | order)}"

    def _at(self, number: int) -> str:
        order = {"sort": self.page.sort_property, "order": "DESC" if self.page.descending else "ASC"}
        return f"{self.path}?{urlencode(self._kept() | order | {'page': str(number + 1)})}"

    def _kept(self) -> dict[str, str]:
        return {name: value for name, value in self.parameters.items() if value}


def page_from(
    request: Any, *, sort: str = "createdTime", descending: bool = True, size: int = PAGE_SIZE,
    among: tuple[str, ...] = (),
) -> Page:  # fmt: skip
    """Of the query: `page` from 1, `sort` (one of `among`, where these are given), `order`, `q`. What cannot be read
    counts as not given."""
    text = query(request, "page", "1")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else 1
    order = query(request, "order").upper()
    is_descending = order == "DESC" if order in ("ASC", "DESC") else descending
    place = min(max(number, 1), MAX_PAGE) - 1
    wanted = query(request, "sort", sort)
    if among and wanted not in among:
        wanted, is_descending = sort, descending
    return Page(size, place, query(request, "q")[:255], wanted, is_descending)


def pager_of(request: Any, page: Page, total: int, *names: str) -> Pager:
    """`names`: of the query's other parameters, which every part of the list keeps."""
    kept = {name: query(request, name)[:255] for name in ("q", *names)}
    return Pager(page, total, text_of(request.path), kept)
