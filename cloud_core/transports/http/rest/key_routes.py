"""The secrets of device profiles over REST: rotation, adoption, and further provision keys. Ours alone."""

from __future__ import annotations

from typing import Any

from twisted.web.http import Request

from cloud_core.core.admin import AdminApi
from cloud_core.core.people.permissions import Act
from cloud_core.core.provisioning import hint_of
from cloud_core.model import KeyRules, ProvisionKey, SecretUse
from cloud_core.transports.http.calls import CallSupport, answers, json_object, rest_app, uuid_of
from cloud_core.transports.http.rest import shapes
from shared.errors import InvalidArgument

_MEMBERS = ("budget", "validFrom", "validUntil", "networks", "namePattern", "gateways", "batch")


class KeyRoutes(CallSupport):
    """Routes by their whole paths; `AdminRoutes` mounts them."""

    app = rest_app()

    def __init__(self, admin: AdminApi) -> None:
        super().__init__(admin)
        self._keys = admin.keys

    @app.route("/api/deviceProfile/<profile>/rotateSecret", methods=["POST"])
    @answers
    async def rotate(self, request: Request, profile: str) -> Any:
        """`overlapSeconds`: so long the old secret stays valid beside the new one; 0 ends it at once."""
        operator = self.operator(request, Act.ADMINISTER)
        overlap_s = _whole(json_object(request), "overlapSeconds", None)
        rotated = await self._keys.rotate(operator, uuid_of(profile), overlap_s)
        shown = shapes.profile_json(rotated, operator.tenant_uuid)
        return shown | {"formerSecretValidUntil": rotated.provision.former_until_ms or None}

    @app.route("/api/deviceProfile/<profile>/adoption", methods=["GET"])
    @answers
    async def adoption(self, request: Request, profile: str) -> Any:
        """How often devices showed the current secret and the former one, and when last; some seconds old."""
        adopted = await self._keys.adoption(self.operator(request, Act.ADMINISTER), uuid_of(profile))
        return {
            "current": _use_json(adopted.current), "former": _use_json(adopted.former),
            "formerSecretValidUntil": adopted.former_until_ms or None,
        }  # fmt: skip

    @app.route("/api/deviceProfile/<profile>/keys", methods=["GET"])
    @answers
    async def all(self, request: Request, profile: str) -> Any:
        found = await self._keys.all(self.operator(request, Act.ADMINISTER), uuid_of(profile))
        return [key_json(one) for one in found]

    @app.route("/api/deviceProfile/<profile>/keys", methods=["POST"])
    @answers
    async def add(self, request: Request, profile: str) -> Any:
        """`name`; `provisionDeviceKey` and `provisionDeviceSecret` are generated where they are missing, and shown in
        this answer alone."""
        operator, body = self.operator(request, Act.ADMINISTER), json_object(request)
        key, secret = _text(body, "provisionDeviceKey"), _text(body, "provisionDeviceSecret")
        made = await self._keys.add(
            operator, uuid_of(profile), _text(body, "name"), key, secret, _rules(body, KeyRules())
        )
        return key_json(made) | {"provisionDeviceKey": made.key, "provisionDeviceSecret": made.secret}

    @app.route("/api/deviceProfile/<profile>/keys/<key>", methods=["POST"])
    @answers
    async def change(self, request: Request, profile: str, key: str) -> Any:
        """Members that are missing stay as they are."""
        operator, body = self.operator(request, Act.ADMINISTER), json_object(request)
        is_enabled = _flag(body, "enabled") if body.get("enabled") is not None else None
        known = await self._keys.find(operator, uuid_of(profile), uuid_of(key))
        rules = _rules(body, known.rules) if any(name in body for name in _MEMBERS) else None
        seen = known.rules if rules is not None else None  # what is missing in the body came from them
        changed = await self._keys.change(operator, uuid_of(profile), uuid_of(key), rules, is_enabled, seen=seen)
        return key_json(changed)

    @app.route("/api/deviceProfile/<profile>/keys/<key>", methods=["DELETE"])
    @answers
    async def delete(self, request: Request, profile: str, key: str) -> Any:
        await self._keys.delete(self.operator(request, Act.ADMINISTER), uuid_of(profile), uuid_of(key))


def key_json(key: ProvisionKey) -> dict[str, Any]:
    """Without key and secret."""
    rules = key.rules
    return {
        "id": shapes.entity_id("PROVISION_KEY", key.uuid), "createdTime": key.created_ms, "name": key.name,
        "keyHint": hint_of(key.key), "enabled": key.is_enabled, "used": key.used, "budget": rules.budget or None,
        "validFrom": rules.valid_from_ms or None, "validUntil": rules.valid_until_ms or None,
        "networks": list(rules.networks), "namePattern": rules.name_pattern or None,
        "gateways": rules.allows_gateways, "batch": rules.batch or None,
    }  # fmt: skip


def _use_json(use: SecretUse) -> dict[str, Any]:
    return {"attempts": use.attempts, "lastTime": use.last_ms or None}


def _rules(body: dict[str, Any], known: KeyRules) -> KeyRules:
    networks = body.get("networks", list(known.networks))
    if networks is None:
        networks = []
    if not isinstance(networks, list) or not all(isinstance(one, str) for one in networks):
        raise InvalidArgument('Validation error: networks must be an array such as ["10.0.0.0/8"]')
    return KeyRules(
        budget=_whole(body, "budget", known.budget), valid_from_ms=_whole(body, "validFrom", known.valid_from_ms),
        valid_until_ms=_whole(body, "validUntil", known.valid_until_ms), networks=tuple(networks),
        name_pattern=_text(body, "namePattern", known.name_pattern),
        allows_gateways=_flag(body, "gateways") if "gateways" in body else known.allows_gateways,
        batch=_text(body, "batch", known.batch),
    )  # fmt: skip


def _text(body: dict[str, Any], name: str, known: str = "") -> str:
    value = body.get(name, known)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value or ""


def _whole(body: dict[str, Any], name: str, known: int | None) -> int:
    """null is 0; missing is `known`, or refused where there is none."""
    if name not in body and known is None:
        raise InvalidArgument(f"Validation error: {name} must be given")
    value = body.get(name, known) or 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise InvalidArgument(f"Validation error: {name} must be a whole number, 0 or more")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool):
        raise InvalidArgument(f"Validation error: {name} must be true or false")
    return value
