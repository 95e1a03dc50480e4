"""Relations over REST (wire-contract.md section 6.8), and the search for devices by their relations (6.3)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.logins import Operator
from cloud_core.core.people.permissions import Act
from cloud_core.core.relations import COMMON, CONTAINS, ENTITY_TYPES, DeviceSearch
from cloud_core.model import Relation
from cloud_core.transports.http.calls import CallSupport, answers, json_object, query, rest_app, shaped
from cloud_core.transports.http.rest import shapes
from shared.errors import InvalidArgument


class RelationRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)

    @app.route("/api/relation", methods=["POST"])
    @app.route("/api/v2/relation", methods=["POST"])
    @answers
    async def save(self, request: Request) -> Any:
        """In place of one with the same ends, type and group. The newer path answers with the relation."""
        operator, body = self.operator(request, Act.WRITE_DEVICES), json_object(request)
        from_type, from_uuid = _entity(body, "from")
        to_type, to_uuid = _entity(body, "to")
        relation = Relation(
            tenant_id=operator.tenant_id, from_type=from_type, from_uuid=from_uuid, to_type=to_type, to_uuid=to_uuid,
            type=_text(body, "type"), type_group=_text(body, "typeGroup") or COMMON,
            additional_info=body.get("additionalInfo"),
        )  # fmt: skip
        await self._admin.save_relation(operator, relation)
        return relation_json(relation) if request.path.startswith(b"/api/v2/") else None

    @app.route("/api/relation", methods=["GET"])
    @answers
    async def find(self, request: Request) -> Any:
        return relation_json(await self._admin.relation(_named(request, self.operator(request, Act.READ))))

    @app.route("/api/relation", methods=["DELETE"])
    @app.route("/api/v2/relation", methods=["DELETE"])
    @answers
    async def delete(self, request: Request) -> Any:
        operator = self.operator(request, Act.WRITE_DEVICES)
        await self._admin.delete_relation(operator, _named(request, operator))

    @app.route("/api/relations", methods=["GET"])
    @answers
    async def list(self, request: Request) -> Any:
        """From an entity or to one: exactly one of `fromId` and `toId`."""
        operator = self.operator(request, Act.READ)
        ends = {name: _end(request, name)[1] for name in ("from", "to") if query(request, f"{name}Id")}
        if len(ends) != 1:
            raise InvalidArgument("Give fromId and fromType, or toId and toType")
        found = await self._admin.relations(
            operator, ends.get("from"), ends.get("to"), query(request, "relationType"),
            query(request, "relationTypeGroup", COMMON),
        )  # fmt: skip
        return await shaped(request, found, lambda: list(map(relation_json, found)))

    @app.route("/api/relations/from/<kind>/<uuid>", methods=["GET"])
    @app.route("/api/relations/from/<kind>/<uuid>/<type_>", methods=["GET"])
    @answers
    async def list_from(self, request: Request, kind: str, uuid: str, type_: str = "") -> Any:
        """From an entity, of one type or of every."""
        return await self._of_end(request, kind, uuid, type_, is_from=True)

    @app.route("/api/relations/to/<kind>/<uuid>", methods=["GET"])
    @app.route("/api/relations/to/<kind>/<uuid>/<type_>", methods=["GET"])
    @answers
    async def list_to(self, request: Request, kind: str, uuid: str, type_: str = "") -> Any:
        """To an entity, of one type or of every."""
        return await self._of_end(request, kind, uuid, type_, is_from=False)

    async def _of_end(self, request: Request, kind: str, uuid: str, type_: str, *, is_from: bool) -> Any:
        operator, group = self.operator(request, Act.READ), query(request, "relationTypeGroup", COMMON)
        _check_entity_type(kind, "fromType" if is_from else "toType")
        end = _uuid(uuid, "fromId" if is_from else "toId")
        ends = (end, None) if is_from else (None, end)
        found = await self._admin.relations(operator, *ends, type_, group)
        return await shaped(request, found, lambda: list(map(relation_json, found)))


def relation_json(relation: Relation) -> dict[str, Any]:
    return {
        "from": shapes.entity_id(relation.from_type, relation.from_uuid),
        "to": shapes.entity_id(relation.to_type, relation.to_uuid),
        "type": relation.type, "typeGroup": relation.type_group, "additionalInfo": relation.additional_info,
    }  # fmt: skip


def device_search_from(body: dict[str, Any]) -> DeviceSearch:
    """The object form of `POST /api/devices`. Raises: InvalidArgument."""
    parameters = body.get("parameters")
    if not isinstance(parameters, dict):
        raise InvalidArgument("Validation error: parameters must not be null")
    _check_entity_type(parameters.get("rootType"), "rootType")
    direction, levels, types = (parameters.get("direction"), parameters.get("maxLevel"), body.get("deviceTypes") or [])
    if direction not in (None, "FROM", "TO"):
        raise InvalidArgument("Validation error: direction must be FROM or TO")
    if levels is not None and (isinstance(levels, bool) or not isinstance(levels, int)):
        raise InvalidArgument("Validation error: maxLevel must be an integer")
    if not isinstance(types, list) or not all(isinstance(one, str) for one in types):
        raise InvalidArgument("Validation error: deviceTypes must be a list of names")
    return DeviceSearch(
        root=_uuid(parameters.get("rootId"), "rootId"), is_from_root=direction != "TO",
        type=_text(body, "relationType") or CONTAINS, device_types=tuple(types),
        max_levels=1 if levels is None else levels,
    )  # fmt: skip


def _named(request: Request, operator: Operator) -> Relation:
    """The relation that the query parameters name."""
    (from_type, from_uuid), (to_type, to_uuid) = _end(request, "from"), _end(request, "to")
    kind = query(request, "relationType")
    if not kind:
        raise InvalidArgument("Required request parameter 'relationType' is not present")
    return Relation(
        tenant_id=operator.tenant_id, from_type=from_type, from_uuid=from_uuid, to_type=to_type, to_uuid=to_uuid,
        type=kind, type_group=query(request, "relationTypeGroup", COMMON),
    )  # fmt: skip


def _end(request: Request, name: str) -> tuple[str, UUID]:
    kind = _check_entity_type(query(request, f"{name}Type"), f"{name}Type")
    return kind, _uuid(query(request, f"{name}Id"), f"{name}Id")


def _entity(body: dict[str, Any], name: str) -> tuple[str, UUID]:
    entity = body.get(name)
    if not isinstance(entity, dict):
        raise InvalidArgument(f"Validation error: {name} must not be null")
    return _check_entity_type(entity.get("entityType"), f"{name}.entityType"), _uuid(entity.get("id"), f"{name}.id")


def _check_entity_type(value: object, name: str) -> str:
    if not isinstance(value, str) or value not in ENTITY_TYPES:
        raise InvalidArgument(f"Validation error: {name} must be one of {', '.join(ENTITY_TYPES)}")
    return value


def _uuid(value: object, name: str) -> UUID:
    try:
        return UUID(str(value))
    except ValueError as error:
        raise InvalidArgument(f"Validation error: {name} is no valid id") from error


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value or ""
