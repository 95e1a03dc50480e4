"""Attributes and time series of devices for operators (wire-contract.md section 6.6)."""

from __future__ import annotations

import time
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.http import Request
from werkzeug import exceptions as routing

from cloud_core.core.permissions import Act
from cloud_core.model import Scope
from cloud_core.storage.interface import TimeSeriesQuery
from cloud_core.transports.http.calls import (
    CallSupport,
    data_answers,
    integer,
    keys_of,
    no_route,
    query,
    raw_body,
    uuid_of,
)
from shared import payloads
from shared.errors import InvalidArgument

SCOPES = {"CLIENT_SCOPE": Scope.CLIENT, "SHARED_SCOPE": Scope.SHARED, "SERVER_SCOPE": Scope.SERVER}
MAX_POINTS = 1_000_000


class DataRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = Klein()

    @app.handle_errors(routing.NotFound, routing.MethodNotAllowed)
    def no_route(self, request: Request, failure: Failure) -> bytes:
        return no_route(request, failure)

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/keys/timeseries", methods=["GET"])
    @data_answers
    async def time_series_keys(self, request: Request, uuid: str) -> Any:
        operator = self.operator(request, Act.READ_DEVICES)
        return sorted(await self._admin.latest(operator, uuid_of(uuid), None))

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/values/timeseries", methods=["GET"])
    @data_answers
    async def time_series(self, request: Request, uuid: str) -> Any:
        operator, keys = self.operator(request, Act.READ_DEVICES), keys_of(request)
        shape = payloads.value_to_json if query(request, "useStrictDataTypes") == "true" else payloads.value_to_text
        if query(request, "agg", "NONE").upper() != "NONE":
            raise InvalidArgument("Aggregation is not supported yet; use agg=NONE")
        if query(request, "startTs") or query(request, "endTs"):
            asked = TimeSeriesQuery(
                tuple(keys or sorted(await self._admin.latest(operator, uuid_of(uuid), None))),
                integer(request, "startTs"), integer(request, "endTs"),
                max(1, min(integer(request, "limit", 100), MAX_POINTS)),
                query(request, "orderBy", "DESC").upper() != "ASC",
            )  # fmt: skip
            found = await self._admin.history(operator, uuid_of(uuid), asked)
            return {key: [_point(ts, shape(value)) for ts, value in points] for key, points in found.items()}
        latest = await self._admin.latest(operator, uuid_of(uuid), keys)
        answer = {key: [_point(ts, shape(value))] for key, (ts, value) in latest.items()}
        for key in set(keys or ()) - set(answer):
            answer[key] = [_point(int(time.time() * 1000), None)]
        return answer

    @app.route("/api/plugins/telemetry/DEVICE/<uuid>/timeseries/<_scope>", methods=["POST"])
    @data_answers
    async def save_time_series(self, request: Request, uuid: str, _scope: str) -> Any:
        operator = self.operator(request)
        samples = payloads.parse_telemetry(raw_body(request), received_ms=int(time.time() * 1000))
        if not samples:
            raise InvalidArgument("No time series data found in request body!")
        await self._admin.append_samples(operator, uuid_of(uuid), samples)

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
        operator = self.operator(request)
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
        operator, wanted, keys = self.operator(request), _scope(scope), keys_of(request)
        if not keys:
            raise InvalidArgument("Empty keys: []")
        await self._admin.delete_attributes(operator, uuid_of(uuid), wanted, keys)


def _point(ts: int, value: Any) -> dict[str, Any]:
    return {"ts": ts, "value": value}


def _scope(name: str) -> Scope:
    if name not in SCOPES:
        raise InvalidArgument(f"Invalid scope: {name}")
    return SCOPES[name]
