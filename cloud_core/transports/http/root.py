"""The HTTP port's root: pages beneath `/ui`, everything else to the REST and device routes."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource

from cloud_core.transports.http.calls import mounted

_PAGES = (b"", b"ui")


class Root(Resource):
    """`routes` and `pages` are classes of routes that name their whole paths."""

    def __init__(self, routes: Any, pages: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.routes = routes
        self.pages = pages

    def getChild(self, path: bytes, request: Any) -> Any:
        return mounted(request, self.pages if path in _PAGES else self.routes)
