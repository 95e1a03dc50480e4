"""Telemetry and attributes of a device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from markupsafe import Markup

from cloud_core.core.histories import AggregateQuery, Aggregation
from cloud_core.core.lists import DeviceView
from cloud_core.core.people.permissions import Act
from cloud_core.model import PRESENCE_KEYS, AttributeEntry, Scope
from cloud_core.transports.http.calls import query
from cloud_core.transports.http.ui.charts import line_chart
from cloud_core.transports.http.ui.device_frame import DeviceTabs, device_url
from cloud_core.transports.http.ui.pages import Redirect, Shown, page, pages_app
from cloud_core.transports.http.ui.visits import PATH, Form, Visitor
from shared import payloads
from shared.device_json import render_json
from shared.errors import InvalidArgument, PlatformError
from shared.json_bodies import decode_json
from shared.messages import Value

INTERVALS = 240  # of a chart
MAX_KEYS, MAX_ATTRIBUTES, MAX_VALUE_CHARS = 120, 30, 200  # shown in a table; a search finds the others
SCOPES = {"shared": Scope.SHARED, "server": Scope.SERVER}
GROUPS = (
    ("From the device", "client", Scope.CLIENT), ("Shared with the device", "shared", Scope.SHARED),
    ("On the server alone", "server", Scope.SERVER),
)  # fmt: skip


class Range(NamedTuple):
    """How far a chart goes back, and how often it is drawn anew."""

    name: str
    title: str
    span_ms: int
    every_s: int


RANGES = (
    Range("1h", "1 hour", 3_600_000, 5), Range("1d", "1 day", 86_400_000, 60), Range("7d", "7 days", 604_800_000, 600),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chart:
    """A key over a range; `problem` in the place of a picture."""

    key: str
    svg: Markup | None = None
    problem: str = ""
    least: float | None = None
    most: float | None = None
    mean: float | None = None


class DeviceDataPages(DeviceTabs):
    """Routes by their whole paths; `UiRoutes` mounts them."""

    app = pages_app()

    # -- telemetry --------------------------------------------------------------------------------

    @app.route(f"{PATH}/devices/<uuid>/telemetry", methods=["GET"])
    @page
    async def telemetry(self, request: Any, uuid: str) -> Shown:
        """Latest values, and `key` over `range`."""
        visitor = await self.visitor(request, Act.READ_DEVICES)
        view = await self.view(visitor, uuid)
        latest = await self._admin.latest(visitor.operator, view.device.uuid, None)
        span = next((one for one in RANGES if one.name == query(request, "range")), RANGES[0])
        key = query(request, "key") if query(request, "key") in latest else _first_number(latest)
        chart = await self._chart(visitor, view, key, span) if key else None
        text = query(request, "q")[:255]
        found = [(name, *told) for name, told in sorted(latest.items()) if text.lower() in name.lower()]
        rows = [(name, ts, text_of(value), is_number(value)) for name, ts, value in found[:MAX_KEYS]]
        return self.show_tab(
            request, visitor, view, "telemetry", rows=rows, chart=chart, ranges=RANGES, span=span,
            left_out=len(found) - len(rows), text=text, is_any=bool(latest),
        )  # fmt: skip

    async def _chart(self, visitor: Visitor, view: DeviceView, key: str, span: Range) -> Chart:
        step_ms = span.span_ms // INTERVALS
        end_ms = (int(time.time() * 1000) // step_ms + 1) * step_ms  # so that intervals stay where they are
        asked = AggregateQuery((key,), end_ms - span.span_ms, end_ms, Aggregation.AVG, step_ms)
        try:
            found = await self._admin.aggregated(visitor.operator, view.device.uuid, asked)
        except InvalidArgument as error:
            return Chart(key, problem=str(error))
        points = [(ts, float(value)) for ts, value in found.get(key, ()) if is_number(value)]
        if not points:
            return Chart(key, problem=f"No numbers in the last {span.title}.")
        values = [value for _, value in points]
        label = f"{key}, last {span.title}: from {min(values):.6g} to {max(values):.6g}, last {values[-1]:.6g}"
        svg = line_chart(points, asked.start_ms, asked.end_ms, label, step_ms=step_ms)
        return Chart(key, svg, "", min(values), max(values), sum(values) / len(values))

    # -- attributes -------------------------------------------------------------------------------

    @app.route(f"{PATH}/devices/<uuid>/attributes", methods=["GET"])
    @page
    async def attributes(self, request: Any, uuid: str) -> Shown:
        """By scope; `scope` and `edit` fill the form with an attribute that is there."""
        visitor = await self.visitor(request, Act.READ_DEVICES)
        view = await self.view(visitor, uuid)
        return await self._attributes(request, visitor, view, {})

    @app.route(f"{PATH}/devices/<uuid>/attributes", methods=["POST"])
    @page
    async def save_attribute(self, request: Any, uuid: str) -> Shown:
        """The value is JSON where it can be read so, else text."""
        visitor, form = await self.sender(request, Act.WRITE_DATA)
        view = await self.view(visitor, uuid)
        try:
            values = attributes_from(form)
            scope = _scope(form)
            await self._admin.put_attributes(visitor.operator, view.device.uuid, scope, values)
        except PlatformError as error:
            return await self._attributes(request, visitor, view, form.values, str(error))
        said = "The device is told where it is connected and listens." if scope is Scope.SHARED else ""
        notice = f"The attribute {form['key'][:100]} is saved. {said}".strip()
        return Redirect(device_url(view.device.uuid, "attributes"), notice)

    @app.route(f"{PATH}/devices/<uuid>/attributes/delete", methods=["POST"])
    @page
    async def delete_attribute(self, request: Any, uuid: str) -> Shown:
        visitor, form = await self.sender(request, Act.WRITE_DATA)
        view = await self.view(visitor, uuid)
        key = form.raw("key")
        if not key:
            raise InvalidArgument("The form names no attribute")
        await self._admin.delete_attributes(visitor.operator, view.device.uuid, _scope(form), [key])
        return Redirect(device_url(view.device.uuid, "attributes"), f"The attribute {key[:100]} is deleted.")

    @app.route(f"{PATH}/devices/<uuid>/attributes/delete", methods=["GET"])
    @page
    async def shown_again(self, request: Any, uuid: str) -> Shown:
        """A page that a form has shown is loaded anew."""
        await self.visitor(request, Act.USE_OWN_LOGIN)
        return Redirect(device_url(uuid, "attributes"))

    async def _attributes(
        self, request: Any, visitor: Visitor, view: DeviceView, values: dict[str, str], problem: str = ""
    ) -> Shown:
        found = await self._admin.lists.attributes(visitor.operator, view.device)
        text, groups = query(request, "q")[:255], []
        for title, name, scope in GROUPS:
            rows = [one for one in found[scope] if text.lower() in one.key.lower()]
            shown = [_line(one, name) for one in rows[:MAX_ATTRIBUTES]]
            groups.append((title, name, shown, len(rows) - len(shown)))
        wanted = SCOPES.get(query(request, "scope"))
        if wanted is not None and not values and visitor.may(Act.WRITE_DATA):
            values = next((_filled(one, wanted) for one in found[wanted] if one.key == query(request, "edit")), {})
        return self.show_tab(
            request, visitor, view, "attributes", status=400 if problem else 200, groups=groups, problem=problem,
            values={"scope": "", "key": "", "value": ""} | values, is_edit=bool(values) and not problem, text=text,
            is_searchable=bool(text) or any(left_out for *_, left_out in groups),
        )  # fmt: skip


class Line(NamedTuple):
    """An attribute in a table."""

    key: str
    text: str
    updated_ms: int
    may_change: bool


def _line(entry: AttributeEntry, scope: str) -> Line:
    is_ours = scope == "server" and entry.key in PRESENCE_KEYS
    return Line(entry.key, text_of(entry.value), entry.updated_ms, scope != "client" and not is_ours)


def _filled(entry: AttributeEntry, scope: Scope) -> dict[str, str]:
    """The form for changing it."""
    return {"scope": scope.name.lower(), "key": entry.key, "value": _typed(entry.value)}


def attributes_from(form: Form) -> dict[str, Value]:
    """`key` and `value` as REST takes them. Raises: InvalidArgument, MalformedRequest."""
    key, text = form["key"], form["value"]
    if not key:
        raise InvalidArgument("Give the attribute a name.")
    if not text:
        raise InvalidArgument('Give it a value; an empty text is "".')
    try:
        value = decode_json(text.encode())
    except PlatformError:
        value = text
    if value is None:
        raise InvalidArgument("null is no value; delete the attribute instead.")
    values = dict(payloads.parse_attributes(render_json({key: value})))
    if not values:
        raise InvalidArgument("This name cannot be stored; choose another one.")
    return values


def _scope(form: Form) -> Scope:
    if form["scope"] not in SCOPES:
        raise InvalidArgument("Choose whether the device shall have it: shared or server.")
    return SCOPES[form["scope"]]


def is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_of(value: Value) -> str:
    text = payloads.value_to_text(value)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"


def _typed(value: Value) -> str:
    """To be edited: text that would be read as something else stands in quotes."""
    text = payloads.value_to_text(value)
    if not isinstance(value, str):
        return text
    try:
        decode_json(text.encode())
    except PlatformError:
        return text if text == text.strip() and text else render_json(text).decode()
    return render_json(text).decode()


def _first_number(latest: dict[str, tuple[int, Value]]) -> str:
    return next((key for key, (_, value) in sorted(latest.items()) if is_number(value)), "")
