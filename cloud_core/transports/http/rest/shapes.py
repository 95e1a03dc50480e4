"""Entities as ThingsBoard's REST JSON and back (wire-contract.md sections 1.1, 6.2 to 6.4, 6.6)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from cloud_core.core.assignments import entity_uuid
from cloud_core.core.people.permissions import TENANT_ADMIN
from cloud_core.model import (
    NIL_CUSTOMER,
    Approval,
    Attempt,
    Customer,
    Device,
    DeviceProfile,
    Package,
    ProvisionConfiguration,
    ProvisionStrategy,
    Reprovisioning,
    StoredCredentials,
    Tenant,
    User,
)
from cloud_core.transports.http.rest import certificate_shapes
from cloud_core.transports.http.rest.certificate_shapes import number_of
from shared.credentials import (
    AccessToken,
    Credentials,
    CredentialsType,
    MqttBasic,
    X509Certificate,
    credentials_id,
    credentials_type,
)
from shared.errors import InvalidArgument, Reason
from shared.messages import PackageKind

TRANSPORT_TYPES = ("DEFAULT", "MQTT", "COAP", "LWM2M", "SNMP")
_PROFILE_OWN = frozenset(
    ("id", "createdTime", "tenantId", "name", "default", "provisionType", "provisionDeviceKey", "version")
)
FIXES = {
    "SUCCESS": "Nothing to mend.",
    "REPLAYED": "The same requester asked again before its first login and got the same answer.",
    Reason.INVALID_PROVISION_CREDENTIALS: "Compare key and secret in the firmware with the device profile.",
    Reason.PROVISIONING_DISABLED: "Choose another provision strategy in the device profile.",
    Reason.DEVICE_EXISTS: "Use a unique name, delete the old device, or choose reprovisioning REPLAY_UNTIL_CONFIRMED.",
    Reason.DEVICE_NOT_FOUND: "Create or import the device under this profile first, with exactly this name.",
    Reason.ALREADY_PROVISIONED: "To allow it once more, delete the device's server attribute provisionState.",
    Reason.CREDENTIALS_IN_USE: "Each device needs credentials of its own; let the server generate them.",
    Reason.INVALID_CREDENTIALS: "Mend the credential members of the request as the detail says.",
    Reason.INVALID_DEVICE_NAME: "Use 1 to 255 characters without markup or control characters.",
    Reason.MALFORMED_REQUEST: "Mend the request's body as the detail says.",
    Reason.RATE_LIMITED: "Too many failed attempts from this source; mend those first, then wait.",
    Reason.UNTRUSTED_CERTIFICATE: "Mend the certificate, or the CA in the device profile, as the detail says.",
    Reason.QUOTA_EXCEEDED: "Delete devices, or raise the key's budget, the tenant's maxDevices or [provisioning]"
    " max_devices_per_tenant, as the detail says.",
    Reason.NO_CERTIFICATE_AUTHORITY: "Make a CA (cloud-core ca init); name it in the profile's certificateAuthority.",
    Reason.APPROVAL_PENDING: "Accept or reject it: Provisioning, Approvals in the web UI (/ui/provisioning/pending),"
    " POST /api/provisioning/pending/accept over REST, or cloud-core provisioning pending; the device goes on asking.",
    Reason.UNAVAILABLE: "The core was busy; the device may simply ask again.",
}


# Of a provision key beside the profile's own.
KEY_FIXES = {
    (Reason.INVALID_PROVISION_CREDENTIALS.value, "key"): "Change the provision key as the detail says, or use another.",
    (Reason.INVALID_DEVICE_NAME.value, "key"): "Name the device as the provision key's namePattern says.",
}


def entity_id(kind: str, uuid: UUID) -> dict[str, str]:
    return {"entityType": kind, "id": str(uuid)}


def device_json(device: Device, tenant: UUID) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "deviceData": {"configuration": {"type": "DEFAULT"}, "transportConfiguration": {"type": "DEFAULT"}},
        "firmwareId": None, "softwareId": None, "additionalInfo": None, "externalId": None,
    }  # fmt: skip
    return {
        **defaults, **device.document,
        "id": entity_id("DEVICE", device.uuid), "createdTime": device.created_ms,
        "tenantId": entity_id("TENANT", tenant),
        "customerId": entity_id("CUSTOMER", device.customer_uuid or NIL_CUSTOMER),
        "name": device.name, "type": device.type, "label": device.label or None,
        "deviceProfileId": entity_id("DEVICE_PROFILE", device.profile_uuid), "version": device.version,
    }  # fmt: skip


def device_info_json(device: Device, customer: Customer | None, is_active: bool, tenant: UUID) -> dict[str, Any]:
    info = customer.document.get("additionalInfo") if customer is not None else None
    return {
        **device_json(device, tenant), "customerTitle": customer.title if customer is not None else None,
        "customerIsPublic": isinstance(info, dict) and info.get("isPublic") is True,
        "deviceProfileName": device.type, "active": is_active,
    }  # fmt: skip


_CUSTOMER_MEMBERS = (
    "country", "state", "city", "address", "address2", "zip", "phone", "email", "additionalInfo", "externalId",
)  # fmt: skip


def customer_json(customer: Customer, tenant: UUID) -> dict[str, Any]:
    return {
        **dict.fromkeys(_CUSTOMER_MEMBERS), **customer.document,
        "id": entity_id("CUSTOMER", customer.uuid), "createdTime": customer.created_ms,
        "tenantId": entity_id("TENANT", tenant), "title": customer.title, "name": customer.title,
        "version": customer.version,
    }  # fmt: skip


_USER_MEMBERS = ("firstName", "lastName", "phone", "additionalInfo")


_TENANT_MEMBERS = (
    "country", "state", "city", "address", "address2", "zip", "phone", "email", "region", "additionalInfo",
    "tenantProfileId",
)  # fmt: skip


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    return {
        **dict.fromkeys(_TENANT_MEMBERS), **tenant.document,
        "id": entity_id("TENANT", tenant.uuid), "createdTime": tenant.created_ms, "title": tenant.name,
        "name": tenant.name, "maxDevices": tenant.max_devices,
    }  # fmt: skip


def user_json(user: User, tenant: UUID, customer: UUID | None) -> dict[str, Any]:
    return {
        **dict.fromkeys(_USER_MEMBERS), **user.document,
        "id": entity_id("USER", user.uuid), "createdTime": user.created_ms, "tenantId": entity_id("TENANT", tenant),
        "customerId": entity_id("CUSTOMER", customer or NIL_CUSTOMER), "email": user.username, "name": user.username,
        "authority": user.authority, "role": user.role.value if user.authority == TENANT_ADMIN else None,
        "customMenuId": None, "version": 1,
    }  # fmt: skip


def package_kind(text: object) -> PackageKind:
    """Raises: InvalidArgument."""
    try:
        return PackageKind(str(text))
    except ValueError as error:
        raise InvalidArgument(f"OtaPackage type must be one of {', '.join(PackageKind)}") from error


_PACKAGE_OWN = frozenset(
    (
        "id", "createdTime", "tenantId", "deviceProfileId", "type", "title", "version", "tag", "url", "usesUrl",
        "hasData", "fileName", "contentType", "checksumAlgorithm", "checksum", "dataSize", "name", "data",
    )
)  # fmt: skip


def package_from(body: dict[str, Any]) -> Package:
    """What an operator says of a package; a nil uuid means a new one. Raises: InvalidArgument."""
    profile = entity_uuid(body.get("deviceProfileId"), "deviceProfileId")
    if profile is None:
        raise InvalidArgument("OtaPackage deviceProfile should be specified!")
    title, version, tag, url = (_text(body, name) for name in ("title", "version", "tag", "url"))
    if body.get("usesUrl") is True and not url:
        raise InvalidArgument("Ota package URL should be specified!")
    return Package(
        id=0, uuid=entity_uuid(body.get("id"), "id") or UUID(int=0), tenant_id=0, profile_id=0, profile_uuid=profile,
        kind=package_kind(body.get("type")), title=title, version=version, tag=tag, url=url,
        document={key: value for key, value in body.items() if key not in _PACKAGE_OWN},
    )  # fmt: skip


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name) or ""
    if not isinstance(value, str):
        raise InvalidArgument(f"Validation error: {name} must be a string")
    return value.strip()


def package_json(package: Package, tenant: UUID) -> dict[str, Any]:
    is_usable = package.has_data or bool(package.url)
    return {
        "additionalInfo": None, "externalId": None, **package.document,
        "id": entity_id("OTA_PACKAGE", package.uuid), "createdTime": package.created_ms,
        "tenantId": entity_id("TENANT", tenant), "deviceProfileId": entity_id("DEVICE_PROFILE", package.profile_uuid),
        "type": package.kind.value, "title": package.title, "version": package.version, "tag": package.tag or None,
        "url": package.url or None, "hasData": is_usable, "fileName": package.file_name or None,
        "contentType": package.content_type or None, "checksumAlgorithm": package.checksum_algorithm or None,
        "checksum": package.checksum or None, "dataSize": package.size_bytes if package.has_data else None,
        "name": package.title,
    }  # fmt: skip


HIDDEN = "••••••"  # stands where a secret is that the caller may not see


def profile_json(profile: DeviceProfile, tenant: UUID, *, reveals: bool = True) -> dict[str, Any]:
    """With `reveals` the provision secret; of a profile by certificates that is a CA's certificate, which is none."""
    provision = profile.provision
    is_hidden = not reveals and provision.strategy is not ProvisionStrategy.X509_CERTIFICATE_CHAIN
    secret = HIDDEN if provision.secret and is_hidden else provision.secret or None
    data = dict(profile.document.get("profileData") or {})
    data.setdefault("configuration", {"type": "DEFAULT"})
    data.setdefault("transportConfiguration", {"type": "DEFAULT"})
    data.setdefault("alarms", None)
    data["provisionConfiguration"] = {
        **(data.get("provisionConfiguration") or {}),
        "type": provision.strategy.value, "provisionDeviceSecret": secret,
        "acceptDeviceCredentials": provision.accept_device_credentials,
        "reprovisioning": provision.reprovisioning.value, "replayWindowSeconds": provision.replay_window_s,
        "approval": provision.approval.value,
        "seedErrorMessages": provision.seed_error_messages,
        **certificate_shapes.members_of(provision),
    }  # fmt: skip
    defaults: dict[str, Any] = {
        "description": None, "image": None, "defaultRuleChainId": None, "defaultDashboardId": None,
        "defaultQueueName": None, "defaultEdgeRuleChainId": None, "firmwareId": None, "softwareId": None,
        "externalId": None, "type": "DEFAULT", "transportType": "DEFAULT",
    }  # fmt: skip
    return {
        **defaults, **profile.document,
        "id": entity_id("DEVICE_PROFILE", profile.uuid), "createdTime": profile.created_ms,
        "tenantId": entity_id("TENANT", tenant), "name": profile.name, "default": profile.is_default,
        "provisionType": provision.strategy.value, "provisionDeviceKey": provision.key or None,
        "profileData": data, "version": profile.version,
    }  # fmt: skip


def profile_info_json(profile: DeviceProfile, tenant: UUID) -> dict[str, Any]:
    whole = profile_json(profile, tenant)
    return {
        name: whole[name] for name in ("id", "tenantId", "name", "image", "defaultDashboardId", "type", "transportType")
    }


def profile_parts(body: dict[str, Any]) -> tuple[str, ProvisionConfiguration, dict[str, Any]]:
    """(name, provision configuration, document to keep) of a posted profile. Raises: InvalidArgument."""
    if not body.get("type"):
        raise InvalidArgument("Device profile type should be specified!")
    if not body.get("transportType"):
        raise InvalidArgument("Device profile transport type should be specified!")
    if body["transportType"] not in TRANSPORT_TYPES:
        raise InvalidArgument(f"Validation error: transportType must be one of {', '.join(TRANSPORT_TYPES)}")
    data = body.get("profileData") or {}
    configuration = data.get("provisionConfiguration") or {} if isinstance(data, dict) else None
    if not isinstance(configuration, dict):
        raise InvalidArgument("Validation error: profileData.provisionConfiguration must be an object")
    kept = {key: value for key, value in configuration.items() if key != "provisionDeviceSecret"}
    document = {key: value for key, value in body.items() if key not in _PROFILE_OWN}
    document["profileData"] = {**data, "provisionConfiguration": kept}
    return str(body.get("name") or ""), _configuration(body, configuration), document


def _configuration(body: dict[str, Any], given: dict[str, Any]) -> ProvisionConfiguration:
    if given.get("provisionDeviceSecret") == HIDDEN:
        raise InvalidArgument("Validation error: provisionDeviceSecret is the hidden one; read the profile anew")
    strategy = body.get("provisionType") or given.get("type") or ProvisionStrategy.DISABLED
    window = number_of(given, "replayWindowSeconds", 3600, 0, 31_536_000)
    try:
        return ProvisionConfiguration(
            strategy=ProvisionStrategy(strategy),
            key=str(body.get("provisionDeviceKey") or ""),
            secret=str(given.get("provisionDeviceSecret") or ""),
            accept_device_credentials=given.get("acceptDeviceCredentials") is True,
            reprovisioning=Reprovisioning(given.get("reprovisioning") or Reprovisioning.REFUSE),
            replay_window_s=window,
            approval=Approval(given.get("approval") or Approval.NONE),
            seed_error_messages=given.get("seedErrorMessages") is True,
            **certificate_shapes.options_from(given, ProvisionStrategy(strategy)),
        )
    except ValueError as error:
        raise InvalidArgument(f"Validation error: {error}") from error


def credentials_json(stored: StoredCredentials, device: UUID) -> dict[str, Any]:
    value: str | None = None
    match stored.credentials:
        case MqttBasic(client_id, username, password):
            members = {"clientId": client_id or None, "userName": username or None, "password": password or None}
            value = msgspec.json.encode(members).decode()
        case X509Certificate(certificate):
            value = certificate
    return {
        "id": {"id": str(stored.uuid)}, "createdTime": stored.created_ms, "deviceId": entity_id("DEVICE", device),
        "credentialsType": credentials_type(stored.credentials).value,
        "credentialsId": credentials_id(stored.credentials), "credentialsValue": value, "version": stored.version,
    }  # fmt: skip


def credentials_from(body: dict[str, Any]) -> Credentials:
    """Raises: InvalidArgument with ThingsBoard's message."""
    kind = body.get("credentialsType")
    if not kind:
        raise InvalidArgument("Device credentials type should be specified!")
    value = body.get("credentialsValue")
    if kind == CredentialsType.ACCESS_TOKEN:
        if not body.get("credentialsId"):
            raise InvalidArgument("Device credentials id should be specified!")
        return AccessToken(str(body["credentialsId"]))
    if kind == CredentialsType.X509_CERTIFICATE:
        return X509Certificate(certificate_shapes.text_of(str(value or "")))
    if kind == CredentialsType.MQTT_BASIC:
        try:
            members = msgspec.json.decode(str(value), type=dict[str, str | None])
        except msgspec.MsgspecError as error:
            raise InvalidArgument("Invalid credentials body for simple mqtt credentials!") from error
        return MqttBasic(*(members.get(name) or "" for name in ("clientId", "userName", "password")))
    raise InvalidArgument(f"Validation error: credentialsType must be one of {', '.join(CredentialsType)}")


def _fix(attempt: Attempt) -> str:
    """By the check that decided where that says more than the outcome."""
    where = (attempt.outcome, attempt.stage)
    return certificate_shapes.FIXES.get(where) or KEY_FIXES.get(where) or FIXES.get(attempt.outcome, "")


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "ref": attempt.ref, "at": attempt.at_ms, "outcome": attempt.outcome, "stage": attempt.stage,
        "detail": attempt.detail, "fix": _fix(attempt), "deviceName": attempt.device_name,
        "keyHint": attempt.key_hint, "transport": attempt.peer.transport.value, "source": attempt.peer.address,
        "request": attempt.request,
    }  # fmt: skip


def page_json(rows: list[dict[str, Any]], total: int, size: int, page: int) -> dict[str, Any]:
    pages = -(-total // size)
    return {"data": rows, "totalPages": pages, "totalElements": total, "hasNext": page + 1 < pages}
