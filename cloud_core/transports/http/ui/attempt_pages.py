"""Provision attempts: the list, and each of them explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from cloud_core.core.people.permissions import Act
from cloud_core.storage.interface.attempts import AttemptFilter
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.rest.attempt_queries import attempt_filter
from cloud_core.transports.http.rest.shapes import attempt_json
from cloud_core.transports.http.ui.outcomes import CHOICES, said, stage_text
from cloud_core.transports.http.ui.pages import PAGE_SIZE, Pages, Shared, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH
from shared.errors import InvalidArgument, NotFound, Reason

LIST = f"{PATH}/provisioning"
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

    @app.route(LIST, methods=["GET"])
    @page
    async def attempts(self, request: Any) -> Shown:
        """By FILTERS, named as over REST; `before`: number of the line from which on."""
        visitor = await self.visitor(request, Act.READ)
        operator, problem = visitor.operator, ""
        try:
            wanted = self._wanted(request)
        except (InvalidArgument, NotFound) as error:
            wanted, problem = AttemptFilter(), f"{error}. All attempts are shown."
        text, before = query(request, "q").strip()[:255], _number(query(request, "before"))
        lines = await self._overview.attempts(operator, wanted, text, before, PAGE_SIZE + 1)
        shown = lines[:PAGE_SIZE]
        places = await self._overview.profile_places(operator)
        kept = {name: value for name in FILTERS if (value := query(request, name)[:255])}
        return self.show(
            request, visitor, "attempts.html", status=400 if problem else 200, title="Provisioning", problem=problem,
            lines=shown, said=said, wanted={name: kept.get(name, "") for name in FILTERS}, is_filtered=bool(kept),
            profiles=[("", "Any"), *((str(one.uuid), one.name) for one in places)],
            names={one.id: one for one in places}, outcomes=CHOICES, times=_SINCE_CHOICES, is_first=before is None,
            first=_address(kept), more=_address(kept | {"before": str(shown[-1].number)}) if lines != shown else "",
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


def _address(kept: dict[str, str]) -> str:
    return f"{LIST}?{urlencode(kept)}" if kept else LIST


def _number(text: str) -> int | None:
    """What cannot be read counts as not given."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
