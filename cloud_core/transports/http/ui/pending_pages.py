"""Requests that wait for an operator's word: looked at, accepted and rejected, one by one or many at once."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from cloud_core.core.keys.approvals import MAX_DECIDED_AT_ONCE
from cloud_core.core.people.permissions import Act
from cloud_core.model import Page, PendingFilter, RequestStatus
from cloud_core.transports.http.calls import query, uuid_of
from cloud_core.transports.http.ui.pages import (
    Pager,
    Pages,
    Redirect,
    Shared,
    Shown,
    page,
    page_from,
    pages_app,
)
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import InvalidArgument, NotFound

LIST = f"{PATH}/provisioning/pending"
FILTERS = ("q", "profileId", "source", "keyName", "status")
MAX_WHY_CHARS = 255
_DECISIONS = {"accept": RequestStatus.ACCEPTED, "reject": RequestStatus.REJECTED}
_WORDS = {RequestStatus.ACCEPTED: "accepted", RequestStatus.REJECTED: "rejected"}
_STATUSES = [("", "Waiting"), ("ACCEPTED", "Accepted, not fetched yet"), ("REJECTED", "Rejected"), ("ANY", "All")]
_SORTED = ("createdTime", "lastTime", "name", "source", "count")


class PendingPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._approvals = shared.admin.approvals
        self._overview = shared.admin.overview

    @app.route(LIST, methods=["GET"])
    @page
    async def pending(self, request: Any) -> Shown:
        """By FILTERS; those that wait unless `status` says otherwise, the oldest first."""
        visitor = await self.visitor(request, Act.WRITE_DEVICES)
        return await self._list(request, visitor, {name: query(request, name)[:255] for name in FILTERS})

    @app.route(f"{LIST}/decide", methods=["POST"])
    @page
    async def decide(self, request: Any) -> Shown:
        """`accept` or `reject`: the id of one, or `chosen` for every `one` that is ticked."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        kept = {name: form[name][:255] for name in FILTERS}
        try:
            status, chosen = _chosen(form)
            why = _why(form)
            done, left = 0, ""
            for uuid in chosen:
                try:
                    await self._approvals.decide(visitor.operator, uuid_of(uuid), status, why=why)
                    done += 1
                except (InvalidArgument, NotFound):  # decided, used or over since the page was shown
                    left = " Some were not there any more."
        except InvalidArgument as error:
            return await self._list(request, visitor, kept, problem=str(error), why=form["why"])
        return await self._done(visitor, kept, f"{_requests(done)} {_WORDS[status]}.{left}")

    @app.route(f"{LIST}/decide-all", methods=["POST"])
    @page
    async def decide_all(self, request: Any) -> Shown:
        """`accept` or `reject` all that wait and match the filters, on the other pages of the list, too."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        kept = {name: form[name][:255] for name in FILTERS}
        try:
            if not form.is_on("sure"):
                raise InvalidArgument("Tick that all requests that match are meant.")
            status = _DECISIONS["accept" if form["accept"] else "reject"]
            wanted, names = _filter({**kept, "status": ""}), 0
            while decided := await self._approvals.decide_all(
                visitor.operator, wanted, kept["q"], status, why=_why(form)
            ):
                names += len(decided)
                if len(decided) < MAX_DECIDED_AT_ONCE:
                    break
        except (InvalidArgument, NotFound) as error:
            return await self._list(request, visitor, kept, problem=str(error), why=form["why"])
        return await self._done(visitor, kept, f"{_requests(names)} {_WORDS[status]}.")

    async def _done(self, visitor: Visitor, kept: dict[str, str], said: str) -> Redirect:
        await self._overview.decided(visitor.operator)
        chosen = {name: value for name, value in kept.items() if value}
        return Redirect(f"{LIST}?{urlencode(chosen)}" if chosen else LIST, said)

    async def _list(
        self, request: Any, visitor: Visitor, kept: dict[str, str], *, problem: str = "", why: str = ""
    ) -> str:  # fmt: skip
        part = page_from(request, descending=False)
        sort = part.sort_property if part.sort_property in _SORTED else _SORTED[0]
        part = Page(part.size, part.page, kept["q"], sort, part.descending)
        try:
            wanted = _filter(kept)
        except (InvalidArgument, NotFound) as error:
            wanted, problem, kept = PendingFilter(), f"{error}. All that wait are shown.", dict.fromkeys(FILTERS, "")
        rows, total = await self._approvals.page(visitor.operator, wanted, part)
        places = await self._overview.profile_places(visitor.operator)
        return self.show(
            request, visitor, "pending.html", status=400 if problem else 200, title="Approvals", problem=problem,
            why=why, rows=rows, pager=Pager(part, total, LIST, kept), wanted=kept,
            is_filtered=any(kept[name] for name in FILTERS if name != "status"), statuses=_STATUSES,
            is_waiting=wanted.status is RequestStatus.PENDING,
            profiles=[("", "Any"), *((str(one.uuid), one.name) for one in places)],
            places={one.name: one.uuid for one in places},
        )  # fmt: skip


def _filter(kept: dict[str, str]) -> PendingFilter:
    """Raises: InvalidArgument, NotFound."""
    status: RequestStatus | None = RequestStatus.PENDING
    if kept["status"]:
        if kept["status"] not in {value for value, _ in _STATUSES}:
            raise InvalidArgument(f"There is no status '{kept['status'][:40]}'")
        status = None if kept["status"] == "ANY" else RequestStatus(kept["status"])
    return PendingFilter(
        status=status, profile_uuid=uuid_of(kept["profileId"]) if kept["profileId"] else None,
        source=kept["source"], key_name=kept["keyName"],
    )  # fmt: skip


def _chosen(form: Form) -> tuple[RequestStatus, list[str]]:
    """Raises: InvalidArgument where none is."""
    word = "accept" if form["accept"] else "reject"
    chosen = form.all_of("one") if form[word] == "chosen" else [form[word]]
    if not any(chosen):
        raise InvalidArgument("Tick the requests that are meant.")
    return _DECISIONS[word], list(dict.fromkeys(chosen))[:MAX_DECIDED_AT_ONCE]


def _why(form: Form) -> str:
    """Raises: InvalidArgument."""
    why = form["why"]
    if len(why) > MAX_WHY_CHARS:
        raise InvalidArgument(f"A reason may have {MAX_WHY_CHARS} characters.")
    return why


def _requests(number: int) -> str:
    return "1 request is" if number == 1 else f"{number} requests are"
