"""The list of devices, a new one, and all of them as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cloud_core.core.lists import ListedDevice
from cloud_core.core.people.permissions import Act
from cloud_core.model import DeviceFilter, DeviceStage
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.streaming import send_pieces
from cloud_core.transports.http.ui.device_frame import STAGES, device_url
from cloud_core.transports.http.ui.pages import Pages, Redirect, Shown, page, page_from, pager_of, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared.errors import PlatformError

FILTERS = ("profile", "stage", "active", "gateway")
COLUMNS = ("name", "type", "label", "gateway", "customer", "state", "active", "created", "id")
_EMPTY = {"name": "", "label": "", "gateway": ""}
_YES_NO = {"yes": True, "no": False}
_SORTED = ("createdTime", "name", "label", "type")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class DevicesPages(Pages):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    @app.route(f"{PATH}/devices", methods=["GET"])
    @page
    async def devices(self, request: Any) -> Shown:
        """By `q`, `profile`, `stage`, `active` and `gateway`."""
        visitor = await self.visitor(request, Act.READ_DEVICES)
        part = page_from(request)
        if part.sort_property not in _SORTED:
            part = replace(part, sort_property=_SORTED[0], descending=True)
        rows, total = await self._admin.lists.devices(visitor.operator, part, filter_of(request))
        pager = pager_of(request, part, total, *FILTERS)
        return self.show(
            request, visitor, "devices.html", title="Devices", rows=rows, pager=pager, stages=STAGES,
            profiles=await self._profile_names(visitor), wanted={name: query(request, name) for name in FILTERS},
            is_filtered=bool(part.text_search or any(query(request, name) for name in FILTERS)),
            query_text=_text_of_query(request),
        )  # fmt: skip

    async def _profile_names(self, visitor: Visitor) -> list[str]:
        if not visitor.may(Act.READ):
            return []
        return [name for _, name in await self._admin.profile_names(visitor.operator)]

    @app.route(f"{PATH}/devices/export", methods=["GET"])
    @page
    async def export(self, request: Any) -> Shown:
        """CSV of what the list shows, of all its pages; no credentials."""
        visitor = await self.visitor(request, Act.READ_DEVICES)
        wanted, text = filter_of(request), query(request, "q")[:255]
        day = datetime.fromtimestamp(self._admin.now_ms() / 1000, UTC).strftime("%Y-%m-%d")
        request.setHeader("Content-Type", "text/csv; charset=utf-8")
        request.setHeader("Content-Disposition", f'attachment; filename="devices-{day}.csv"')
        await send_pieces(request, _csv(self._admin.lists.all_devices(visitor.operator, text, wanted)))
        return b""

    @app.route(f"{PATH}/devices/new", methods=["GET"])
    @page
    async def new(self, request: Any) -> Shown:
        visitor = await self.visitor(request, Act.WRITE_DEVICES)
        return await self._form(request, visitor, {"profile": query(request, "profile")})

    @app.route(f"{PATH}/devices/new", methods=["POST"])
    @page
    async def create(self, request: Any) -> Shown:
        """Its access token is made by the core unless one is given."""
        visitor, form = await self.sender(request, Act.WRITE_DEVICES)
        try:
            saved = await self._admin.save_device(visitor.operator, _members(form), form["access_token"])
        except PlatformError as error:
            kept = {name: text for name, text in form.values.items() if name != "access_token"}
            return await self._form(request, visitor, kept, str(error))
        return Redirect(device_url(saved.uuid), f"The device {saved.name} is created.")

    async def _form(self, request: Any, visitor: Visitor, values: dict[str, str], problem: str = "") -> Shown:
        names = await self._profile_names(visitor)
        default = (await self._admin.default_profile(visitor.operator)).name
        return self.show(
            request, visitor, "device_new.html", status=400 if problem else 200, title="New device",
            problem=problem, values=_EMPTY | values, profiles=[(name, name) for name in names],
            profile=values.get("profile") or default,
        )  # fmt: skip


def filter_of(request: Any) -> DeviceFilter:
    """Of the query; what cannot be read counts as not given."""
    stage = query(request, "stage").upper()
    return DeviceFilter(
        profile_name=query(request, "profile")[:255], is_active=_YES_NO.get(query(request, "active")),
        is_gateway=_YES_NO.get(query(request, "gateway")),
        stage=DeviceStage(stage) if stage in tuple(DeviceStage) else None,
    )  # fmt: skip


def _text_of_query(request: Any) -> str:
    text: str = request.uri.partition(b"?")[2].decode("latin-1")
    return text


def _members(form: Form) -> dict[str, Any]:
    """As REST has them."""
    return {
        "name": form["name"], "label": form["label"], "type": form["profile"],
        "additionalInfo": {"gateway": True} if form.is_on("gateway") else None,
    }  # fmt: skip


async def _csv(parts: AsyncIterator[list[ListedDevice]]) -> AsyncIterator[bytes]:
    yield csv_line(COLUMNS)
    async for rows in parts:
        yield b"".join(map(_line_of, rows))


def _line_of(row: ListedDevice) -> bytes:
    device = row.device
    return csv_line(
        (
            device.name, device.type, device.label, "true" if device.is_gateway else "false",
            row.customer.title if row.customer is not None else "", STAGES[row.stage][0],
            "true" if row.is_active else "false",
            datetime.fromtimestamp(device.created_ms / 1000, UTC).isoformat(timespec="seconds"), str(device.uuid),
        )
    )  # fmt: skip


def csv_line(cells: Iterable[str]) -> bytes:
    """What a spreadsheet would take for a formula stands behind an apostrophe."""
    line = io.StringIO()
    csv.writer(line).writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return line.getvalue().encode("utf-8", "replace")
