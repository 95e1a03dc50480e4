"""The description of all REST routes, and a page to read and try them; both without a login."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.threads import deferToThread
from twisted.web.http import Request

from cloud_core.transports.http.calls import answers, rest_app
from cloud_core.transports.http.rest import openapi
from shared.errors import NotFound

_FOLDER = Path(__file__).parent / "docs_page"
_TYPES = {"index.html": "text/html; charset=utf-8", "docs.css": "text/css", "docs.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class DocsRoutes:
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, routes: Any) -> None:
        self._routes = routes  # the class that mounts all others
        self._description = b""

    @app.route("/api/openapi.json", methods=["GET"])
    @answers
    async def description(self, request: Request) -> Any:
        """This description."""
        if not self._description:
            self._description = await deferToThread(_described, self._routes)  # a tenth of a second, once
        request.setHeader("Content-Type", "application/json")
        return self._description

    @app.route("/api/docs", methods=["GET"])
    @answers
    async def page(self, request: Request) -> Any:
        """A page to read this description and to try calls."""
        return _file(request, "index.html")

    @app.route("/api/docs/<file>", methods=["GET"])
    @answers
    async def part(self, request: Request, file: str) -> Any:
        """Script and style of the page."""
        return _file(request, file)


def _described(routes: Any) -> bytes:
    try:
        version = metadata.version("muster")
    except metadata.PackageNotFoundError:  # run from its source
        version = "0"
    return msgspec.json.encode(openapi.document(routes, version))


def _file(request: Request, name: str) -> bytes:
    if name not in _TYPES:
        raise NotFound(f"There is no {name[:80]!r} here")
    request.setHeader("Content-Type", _TYPES[name])
    for header, value in _HEADERS.items():
        request.setHeader(header, value)
    return (_FOLDER / name).read_bytes()
