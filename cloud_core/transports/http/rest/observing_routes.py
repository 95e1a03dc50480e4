"""`/metrics` for a scraper, `/health/live` and `/health/ready` for load balancers and supervisors.

Health is for everybody and says one fixed word for each thing that is wrong. Metrics are for whoever has the token of
`[metrics]`; without one, for callers on this machine that no proxy has sent.
"""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http import Request

from cloud_core.core.health import Health
from cloud_core.core.metrics import Metrics
from cloud_core.measures import CONTENT_TYPE
from cloud_core.transports.http.calls import address_of, answers, is_handed_on, rest_app
from shared.errors import NotAuthenticated, NotAuthorized


class ObservingRoutes:
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, *, metrics: Metrics, health: Health, token: str) -> None:
        self._metrics = metrics
        self._health = health
        self._token = token.encode()

    @app.route("/metrics", methods=["GET"])
    @answers
    async def metrics(self, request: Request) -> Any:
        self._check(request)
        request.setHeader("Content-Type", CONTENT_TYPE)
        request.setHeader("Cache-Control", "no-store")
        return (await self._metrics.shown()).encode()

    @app.route("/health/live", methods=["GET"])
    @answers
    async def live(self, request: Request) -> Any:
        request.setHeader("Cache-Control", "no-store")
        return {"status": "live"}

    @app.route("/health/ready", methods=["GET"])
    @answers
    async def ready(self, request: Request) -> Any:
        request.setHeader("Cache-Control", "no-store")
        known: Deferred[tuple[str, ...]] = Deferred()
        self._health.ready(lambda found: None if known.called else known.callback(found))
        reasons = await known
        if not reasons:
            degraded = self._health.degraded()
            return {"status": "ready", "degraded": list(degraded)} if degraded else {"status": "ready"}
        request.setResponseCode(503)
        request.setHeader("Retry-After", "1")
        return {"status": "not ready", "reasons": list(reasons)}

    def _check(self, request: Request) -> None:
        """Raises: NotAuthenticated, NotAuthorized."""
        if self._token:
            header = request.getHeader("authorization") or ""
            if not hmac.compare_digest(header.encode("utf-8", "replace"), b"Bearer " + self._token):
                raise NotAuthenticated("Metrics need the token of [metrics] token: Authorization: Bearer …")
        elif not _is_local(request):
            raise NotAuthorized("Metrics are for this machine alone; set [metrics] token to read them from elsewhere")


def _is_local(request: Request) -> bool:
    """From this machine, and not by way of a proxy on it."""
    if is_handed_on(request):
        return False
    try:
        address = ip_address(address_of(request).partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
