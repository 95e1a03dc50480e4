"""The line view: whether devices come in, readable from across the hall."""

from __future__ import annotations

from typing import Any, NamedTuple

from markupsafe import Markup

from cloud_core.core.overview import OverviewApi
from cloud_core.core.people.permissions import Act
from cloud_core.core.system_view import System
from cloud_core.core.traffic import MINUTES, OTHERS, SOURCE_MINUTES, Rates
from cloud_core.storage.interface.overview import Waiting
from cloud_core.transports.http.ui.fragments import Fragments
from cloud_core.transports.http.ui.outcomes import said
from cloud_core.transports.http.ui.overview_pages import troubles
from cloud_core.transports.http.ui.pages import Pages, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.rate_chart import rate_chart, share
from cloud_core.transports.http.ui.visits import PATH, Visitor

STORM = f"{PATH}/provisioning/storm"
FRESH_MS = 1_000
TOP = 8
PATIENCE_MS = 600_000  # so long a request may wait for approval before the light changes
MANY, SOME = 0.5, 0.1  # of the requests were refused


class Light(NamedTuple):
    """`kind` is its colour: good, warn, bad, idle. `fix`: what to do about it."""

    kind: str
    word: str
    fix: str


class StormPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._overview: OverviewApi = shared.admin.overview
        self._fragments = Fragments(self._overview.now_ms, FRESH_MS)

    @app.route(STORM, methods=["GET"])
    @page
    async def storm(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.READ)
        return self.show(request, visitor, "storm.html", title="Line view", fragment=Markup(await self._live(visitor)))

    @app.route(f"{STORM}/live", methods=["GET"])
    @page
    async def live(self, request: Any) -> Shown:
        return await self._live(await self.visitor(request, Act.READ))

    async def _live(self, visitor: Visitor) -> str:
        operator = visitor.operator
        waiting = await self._overview.waiting(operator) or Waiting()
        key = (operator.tenant_id, operator.sees_unassigned, visitor.may(Act.WRITE_DEVICES), waiting)
        return await self._fragments.get(key, lambda: self._render(visitor, waiting))

    async def _render(self, visitor: Visitor, waiting: Waiting) -> str:
        operator, overview = visitor.operator, self._overview
        rates, system = overview.rates(operator), await overview.system()
        now_ms = overview.now_ms()
        since = now_ms - SOURCE_MINUTES * 60_000
        return self._templates.render(
            "storm_live.html", visitor=visitor, rates=rates, system=system, waiting=waiting, share=share,
            minutes=SOURCE_MINUTES, light=light(rates, system, waiting, now_ms), said=said, since=since,
            chart=rate_chart(rates.minutes, f"Provision requests by minute over the last {MINUTES} minutes"),
            sources=[(one or "others", count, one != OTHERS) for one, count in rates.recent.sources.most_common(TOP)],
            reasons=rates.recent.refused.most_common(TOP), sees_all=operator.sees_unassigned,
        )  # fmt: skip


def light(rates: Rates, system: System, waiting: Waiting, now_ms: int) -> Light:
    """Red where the core or most devices fail, yellow where somebody has to look, green where devices come in."""
    recent = rates.recent
    decided = recent.granted + recent.refusals
    wrong = troubles(system, sees_all=False)
    if wrong:
        return Light("bad", "Stopped", wrong[0])
    if decided and recent.refusals > MANY * decided:
        return Light("bad", "Refused", "Most devices are refused; see the reasons below.")
    if waiting.total and now_ms - waiting.oldest_ms > PATIENCE_MS:
        return Light("warn", "Waiting", "Devices wait for approval; an operator has to decide.")
    if decided and recent.refusals > SOME * decided:
        return Light("warn", "Look", "Some devices are refused; see the reasons below.")
    if recent.requests:
        return Light("good", "Running", "Devices come in.")
    return Light("idle", "Quiet", f"No device has asked in the last {SOURCE_MINUTES} minutes.")
