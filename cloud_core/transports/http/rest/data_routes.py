"""Attributes and time series of devices for operators (wire-contract.md section 6.6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from twisted.internet.threads import deferToThread
from twisted.web.http import Request

from cloud_core.core.histories import EVERYTHING, AggregateQuery, Aggregation, Removal
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.model import Scope
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.transports.http.calls import (
    CallSupport,
    data_answers,
    integer,
    keys_of,
    query,
    raw_body,
    rest_app,
    uuid_of,
)
from shared import payloads
from shared.errors import InvalidArgument
from shared.messages import Value

SCOPES = {"CLIENT_SCOPE": Scope.CLIENT, "SHARED_SCOPE": Scope.SHARED, "SERVER_SCOPE": Scope.SERVER}
MAX_POINTS = 1_000_000
SHAPED_AT_ONCE = 5_000  # points; more take long, and are shaped in a thread while devices are served


class DataRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/timeseries", methods=["GET"])
    @data_answers
    async def time_series_keys(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        return sorted(await self._admin.latest(operator, uuid_of(uuid), None))

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries", methods=["GET"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries/history", methods=["GET"])
    @data_answers
    async def time_series(self, request: Request, uuid: str) -> Any:
        """The latest values of `keys`, or with `startTs` and `endTs` the history, as it is or aggregated (`agg`)."""
        operator, keys = self.operator(request, Act.READ_DEVICES), keys_of(request)
        if request.path.endswith(b"/history") or query(request, "startTs") or query(request, "endTs"):
            found = await self._history(request, operator, uuid_of(uuid), keys)
            shape = _value_shape(request)
            if sum(map(len, found.values())) <= SHAPED_AT_ONCE:
                return _history_json(found, shape)
            content: bytes = await deferToThread(lambda: msgspec.json.encode(_history_json(found, shape)))
            request.setHeader("Content-Type", "application/json")
            return content
        shape = _value_shape(request)
        latest = await self._admin.latest(operator, uuid_of(uuid), keys)
        answer = {key: [_point(ts, shape(value))] for key, (ts, value) in latest.items()}
        for key in set(keys or ()) - set(answer):
            answer[key] = [_point(int(time.time() * 1000), None)]
        return answer

    async def _history(self, request: Request, operator: Operator, uuid: UUID, keys: list[str] | None) -> Any:
        first, last = integer(request, "startTs"), integer(request, "endTs")
        aggregation, order = query(request, "agg", "NONE").upper(), query(request, "orderBy").upper()
        if order not in ("", "ASC", "DESC"):
            raise InvalidArgument("The parameter 'orderBy' must be ASC or DESC")
        wanted = tuple(keys or sorted(await self._admin.latest(operator, uuid, None)))
        if aggregation == "NONE":
            limit = max(1, min(integer(request, "limit", 100), MAX_POINTS // max(1, len(wanted))))
            return await self._admin.history(
                operator, uuid, TimeSeriesQuery(wanted, first, last, limit, order != "ASC")
            )
        if aggregation not in tuple(Aggregation):
            raise InvalidArgument(f"The parameter 'agg' must be one of NONE, {', '.join(Aggregation)}")
        if query(request, "intervalType", "MILLISECONDS") != "MILLISECONDS":
            raise InvalidArgument("The parameter 'intervalType' must be MILLISECONDS; say the interval in ms")
        aggregate = AggregateQuery(
            wanted, first, last, Aggregation(aggregation), integer(request, "interval", 0), order == "DESC"
        )
        aggregate.step_ms()  # refuses what cannot be answered before anything is read
        return await self._admin.aggregated(operator, uuid, aggregate)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/timeseries/<_scope>", methods=["POST"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/timeseries/<_scope>/<ttl>", methods=["POST"])
    @data_answers
    async def save_time_series(self, request: Request, uuid: str, _scope: str, ttl: str = "0") -> Any:
        """Telemetry as a device would send it. A time to live is accepted; how long values are kept is a setting."""
        operator = self.operator(request, Act.WRITE_DATA)
        if not (ttl.isascii() and ttl.isdigit()):
            raise InvalidArgument("The time to live must be a whole number of seconds")
        samples = payloads.parse_telemetry(raw_body(request), received_ms=int(time.time() * 1000))
        if not samples:
            raise InvalidArgument("No time series data found in request body!")
        await self._admin.append_samples(operator, uuid_of(uuid), samples)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/timeseries/delete", methods=["DELETE"])
    @data_answers
    async def delete_time_series(self, request: Request, uuid: str) -> Any:
        """Removes `keys` from `startTs` to before `endTs`, or with `deleteAllDataForKeys=true` all of them."""
        operator, keys = self.operator(request, Act.WRITE_DATA), keys_of(request)
        if not keys:
            raise InvalidArgument("Empty keys: []")
        if query(request, "deleteAllDataForKeys").lower() == "true":
            first, last = EVERYTHING
        elif not query(request, "startTs") or not query(request, "endTs"):
            raise InvalidArgument(
                "When deleteAllDataForKeys is false, start and end timestamp values shouldn't be empty"
            )
        else:
            first, last = integer(request, "startTs"), integer(request, "endTs")
        removal = Removal(
            tuple(keys), first, last, is_latest_kept=query(request, "deleteLatest", "true").lower() == "false",
            is_latest_rewritten=query(request, "rewriteLatestIfDeleted").lower() == "true",
        )  # fmt: skip
        await self._admin.remove_samples(operator, uuid_of(uuid), removal)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes", methods=["GET"])
    @data_answers
    async def attribute_keys(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), list(SCOPES.values()), None)
        return sorted({entry.key for entry in found})

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/attributes/<scope>", methods=["GET"])
    @data_answers
    async def attribute_keys_of_scope(self, request: Request, uuid: str, scope: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), [_scope(scope)], None)
        return sorted(entry.key for entry in found)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/attributes", methods=["GET"])
    @data_answers
    async def all_attributes(self, request: Request, uuid: str) -> Any:
        return await self._attributes(request, uuid, list(SCOPES.values()))

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/attributes/<scope>", methods=["GET"])
    @data_answers
    async def attributes(self, request: Request, uuid: str, scope: str) -> Any:
        return await self._attributes(request, uuid, [_scope(scope)])

    async def _attributes(self, request: Request, uuid: str, scopes: list[Scope]) -> list[dict[str, Any]]:
        operator = self.operator(request, Act.READ_DEVICES)
        found = await self._admin.attributes(operator, uuid_of(uuid), scopes, keys_of(request))
        return [
            {"lastUpdateTs": one.updated_ms, "key": one.key, "value": payloads.value_to_json(one.value)}
            for one in found
        ]

    @app.route("/api/plugins/telemetry/<uuid>/<scope>", methods=["POST"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/<scope>", methods=["POST"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/attributes/<scope>", methods=["POST"])
    @data_answers
    async def save_attributes(self, request: Request, uuid: str, scope: str) -> Any:
        operator = self.operator(request, Act.WRITE_DATA)
        wanted = _scope(scope)
        if wanted is Scope.CLIENT:
            raise InvalidArgument(f"Invalid scope: {scope}")
        values = payloads.parse_attributes(raw_body(request))
        if not values:
            raise InvalidArgument("No attributes data found in request body!")
        await self._admin.put_attributes(operator, uuid_of(uuid), wanted, values)

    @app.route("/api/plugins/telemetry/<uuid>/<scope>", methods=["DELETE"])
    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/<scope>", methods=["DELETE"])
    @data_answers
    async def delete_attributes(self, request: Request, uuid: str, scope: str) -> Any:
        operator, wanted, keys = self.operator(request, Act.WRITE_DATA), _scope(scope), keys_of(request)
        if not keys:
            raise InvalidArgument("Empty keys: []")
        await self._admin.delete_attributes(operator, uuid_of(uuid), wanted, keys)


def _value_shape(request: Request) -> Callable[[Value], Any]:
    return payloads.value_to_json if query(request, "useStrictDataTypes") == "true" else payloads.value_to_text


def _history_json(found: dict[str, list[tuple[int, Value]]], shape: Callable[[Value], Any]) -> dict[str, Any]:
    return {key: [_point(ts, shape(value)) for ts, value in points] for key, points in found.items()}


def _point(ts: int, value: Any) -> dict[str, Any]:
    return {"ts": ts, "value": value}


def _scope(name: str) -> Scope:
    if name not in SCOPES:
        raise InvalidArgument(f"Invalid scope: {name}")
    return SCOPES[name]
