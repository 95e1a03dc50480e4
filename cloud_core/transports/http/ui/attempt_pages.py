"""Provision attempts: the list, and each of them explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from cloud_core.core.people.permissions import Act
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.rest.attempt_queries import attempt_filter
from cloud_core.transports.http.rest.shapes import attempt_json
from cloud_core.transports.http.ui.fragments import Fragments
from cloud_core.transports.http.ui.outcomes import CHOICES, said, stage_text
from cloud_core.transports.http.ui.pages import PAGE_SIZE, Pages, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Visitor
from shared.errors import InvalidArgument, NotFound, Reason

LIST = f"{PATH}/provisioning"
FRESH_MS = 2_000
SINCE = {"15min": 900_000, "1h": 3_600_000, "8h": 28_800_000, "24h": 86_400_000, "7d": 604_800_000}
_SINCE_CHOICES = [
    ("", "Any time"), ("15min", "Last 15 minutes"), ("1h", "Last hour"), ("8h", "Last 8 hours"),
    ("24h", "Last 24 hours"), ("7d", "Last 7 days"),
]  # fmt: skip
FILTERS = ("q", "outcome", "deviceName", "deviceProfileId", "since", "startTs", "endTs")


class AttemptPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._overview = shared.admin.overview
        self._fragments = Fragments(self._overview.now_ms, FRESH_MS)

    @app.route(LIST, methods=["GET"])
    @page
    async def attempts(self, request: Any) -> Shown:
        """By FILTERS, named as over REST; `before`: number of the line from which on."""
        visitor = await self.visitor(request, Act.READ)
        problem = ""
        try:
            wanted = self._wanted(request)
        except (InvalidArgument, NotFound) as error:
            wanted, problem = AttemptFilter(), f"{error}. All attempts are shown."
        kept, places = _kept(request), await self._overview.profile_places(visitor.operator)
        fragment = await self._render(visitor, kept, wanted, _number(query(request, "before")))
        return self.show(
            request, visitor, "attempts.html", status=400 if problem else 200, title="Provisioning", problem=problem,
            fragment=Markup(fragment), wanted={name: kept.get(name, "") for name in FILTERS}, is_filtered=bool(kept),
            profiles=[("", "Any"), *((str(one.uuid), one.name) for one in places)], outcomes=CHOICES,
            times=_SINCE_CHOICES,
        )  # fmt: skip

    @app.route(f"{LIST}/live", methods=["GET"])
    @page
    async def live(self, request: Any) -> Shown:
        """The newest ones, rendered at most once in FRESH_MS for all who filter alike."""
        visitor, kept = await self.visitor(request, Act.READ), _kept(request)
        key = (visitor.operator.tenant_id, visitor.operator.sees_unassigned, tuple(kept.items()))
        wanted = self._wanted(request)
        return await self._fragments.get(key, lambda: self._render(visitor, kept, wanted, None))

    async def _render(self, visitor: Visitor, kept: dict[str, str], wanted: AttemptFilter, before: int | None) -> str:
        operator, text = visitor.operator, kept.get("q", "").strip()
        lines = await self._overview.attempts(operator, wanted, text, before, PAGE_SIZE + 1)
        shown = lines[:PAGE_SIZE]
        places = await self._overview.profile_places(operator)
        return self._templates.render(
            "attempts_live.html", lines=shown, said=said, is_filtered=bool(kept), is_first=before is None,
            names={one.id: one for one in places}, first=_address(kept), live=_address(kept, f"{LIST}/live"),
            more=_address(kept | {"before": str(shown[-1].number)}) if lines != shown else "",
        )  # fmt: skip

    def _wanted(self, request: Any) -> AttemptFilter:
        """Raises: InvalidArgument, NotFound."""
        wanted = attempt_filter(request)
        since_ms = SINCE.get(query(request, "since"))
        if since_ms is not None:
            wanted = replace(wanted, start_ms=self._overview.now_ms() - since_ms)
        return wanted

    @app.route(f"{LIST}/<ref>", methods=["GET"])
    @page
    async def attempt(self, request: Any, ref: str) -> Shown:
        """Stage, cause and fix."""
        visitor = await self.visitor(request, Act.READ)
        attempt = await self._admin.attempt(visitor.operator, ref.strip()[:64])
        view = await self._overview.attempt_view(visitor.operator, attempt)
        return self.show(
            request, visitor, "attempt.html", title=f"Attempt {attempt.ref}", view=view, attempt=attempt,
            said=said(attempt.outcome), stage=stage_text(attempt.stage), fix=attempt_json(attempt)["fix"],
            is_waiting=attempt.outcome == Reason.APPROVAL_PENDING.value,
        )  # fmt: skip


def _kept(request: Any) -> dict[str, str]:
    return {name: value for name in FILTERS if (value := query(request, name)[:255])}


def _address(kept: dict[str, str], path: str = LIST) -> str:
    return f"{path}?{urlencode(kept)}" if kept else path


def _number(text: str) -> int | None:
    """What cannot be read counts as not given."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
