"""What there is to know at a glance: how far devices have come, what comes in, what is refused, how the core fares."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from markupsafe import Markup

from cloud_core.core.overview import STALE_DAYS, Counted, Funnel
from cloud_core.core.people.permissions import Act
from cloud_core.core.system_view import System
from cloud_core.storage.interface.overview import Waiting
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.ui.fragments import Fragments
from cloud_core.transports.http.ui.navigation import home_of
from cloud_core.transports.http.ui.outcomes import Said, said
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.rate_chart import rate_chart, share
from cloud_core.transports.http.ui.visits import PATH, Visitor

FRESH_MS = 2_000
_REASONS = {
    "STARTING": "The core is starting.",
    "DRAINING": "The core is being stopped.",
    "STORE_UNAVAILABLE": "The database refuses writes, or more waits for it than it can take.",
}


class Stage(NamedTuple):
    """A stage of the funnel. `url`: the devices that stand there, where there is such a list."""

    title: str
    devices: int
    percent: int
    help: str
    url: str = ""


_STAGES = (
    ("Created", "Devices that exist: made by hand, by an import, by a gateway, or by their own request."),
    (
        "Requested",
        "Devices that have asked for credentials: they were handed out or are used, or the device was refused or "
        "waits (as far as the newest attempts tell).",
    ),
    (
        "Issued",
        "Devices whose credentials were handed out in a provision response, or are used although they were given by "
        "hand.",
    ),
    ("Confirmed", "Devices that have logged in with their credentials, or were heard through their gateway."),
    ("Active", "Devices that were heard of within their inactivity timeout."),
    (f"Stale ({STALE_DAYS} d)", f"Confirmed devices that are not active and have been silent for {STALE_DAYS} days."),
)
_LISTS = ("", "", "", "stage=CONFIRMED", "active=yes", "")


class Refusal(NamedTuple):
    """How often an outcome came up, and the attempts themselves."""

    said: Said
    times: int
    url: str


class OverviewPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._overview = shared.admin.overview
        self._fragments = Fragments(self._overview.now_ms, FRESH_MS)

    @app.route(f"{PATH}/", methods=["GET"])
    @page
    async def overview(self, request: Any) -> Shown:
        """Of all devices, or of those of one `profile` (uuid)."""
        visitor = await self.visitor(request, Act.USE_OWN_LOGIN)
        if not visitor.may(Act.READ):
            return Redirect(home_of(visitor))
        counted = await self._overview.counted(visitor.operator)
        profile = _profile(query(request, "profile"), counted)
        return self.show(
            request, visitor, "overview.html", title="Overview", fragment=Markup(await self._live(visitor, profile)),
            profiles=[one.place for one in counted.profiles] if counted is not None else [], profile=profile,
            stages=_STAGES,
        )  # fmt: skip

    @app.route(f"{PATH}/overview/live", methods=["GET"])
    @page
    async def live(self, request: Any) -> Shown:
        """The part that changes, rendered at most once in FRESH_MS for all who see the same."""
        visitor = await self.visitor(request, Act.READ)
        counted = await self._overview.counted(visitor.operator)
        return await self._live(visitor, _profile(query(request, "profile"), counted))

    async def _live(self, visitor: Visitor, profile: UUID | None) -> str:
        operator = visitor.operator
        waiting = await self._overview.waiting(operator)  # shown at once, however fresh the rest is
        key = (operator.tenant_id, operator.sees_unassigned, visitor.may(Act.WRITE_DEVICES),
               visitor.may(Act.ADMINISTER), profile, waiting)  # fmt: skip
        return await self._fragments.get(key, lambda: self._render(visitor, profile, waiting))

    async def _render(self, visitor: Visitor, profile: UUID | None, waiting: Waiting | None) -> str:
        operator, overview = visitor.operator, self._overview
        counted = await overview.counted(operator)
        rates, system = overview.rates(operator), await overview.system()
        known = counted.funnel(profile) if counted is not None else None
        hour = [sum(getattr(one, name) for one in rates.minutes) for name in ("granted", "waiting", "refusals")]
        return self._templates.render(
            "overview_live.html", visitor=visitor, stages=stages_of(known) if known is not None else None,
            share=share, counted=counted, is_empty=known is not None and not counted_any(counted) and not sum(hour),
            hour=hour, rates=rates, chart=rate_chart(rates.minutes, _chart_label(hour)),
            refusals=refusals_of(counted, overview.now_ms()) if counted is not None else [],
            waiting=waiting, system=system, troubles=troubles(system, sees_all=operator.sees_unassigned),
            sees_all=operator.sees_unassigned, profile=profile,
        )  # fmt: skip


def _profile(text: str, counted: Counted | None) -> UUID | None:
    """One that the tenant has: what is kept rendered is bounded by it."""
    known = {str(one.place.uuid): one.place.uuid for one in counted.profiles} if counted is not None else {}
    return known.get(text.strip().lower())


def stages_of(funnel: Funnel) -> list[Stage]:
    return [
        Stage(title, count, round(100 * count / funnel.created) if funnel.created else 0, help_text,
              f"{PATH}/devices?{chosen}" if chosen else "")
        for (title, help_text), count, chosen in zip(_STAGES, funnel, _LISTS, strict=True)
    ]  # fmt: skip


def counted_any(counted: Counted | None) -> bool:
    return counted is not None and counted.funnel().created > 0


def refusals_of(counted: Counted, now_ms: int) -> list[Refusal]:
    """The most frequent first; those that merely wait are not refused."""
    since = now_ms - 86_400_000
    rows = sorted(counted.refusals.items(), key=lambda one: -one[1])
    return [
        Refusal(said(outcome), count, f"{PATH}/provisioning?outcome={outcome}&startTs={since}")
        for outcome, count in rows
        if said(outcome).kind == "bad"
    ]


def troubles(system: System, *, sees_all: bool) -> list[str]:
    """What is wrong with the core, in sentences."""
    found = [_REASONS.get(reason, reason) for reason in system.reasons]
    if system.is_congested or system.is_queue_long:
        found.append("Work waits for the database; devices are slowed down.")
    if sees_all and system.is_disk_low:
        found.append("The disk of the data directory is nearly full; free some space or keep less history.")
    return found


def _chart_label(hour: list[int]) -> str:
    granted, waiting, refused = hour
    return f"Provision requests by minute over the last hour: {granted} granted, {waiting} waiting, {refused} refused"
