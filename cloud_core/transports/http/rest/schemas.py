"""What the OpenAPI description says of bodies, answers and parameters; the rest it takes from the routes."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "integer"}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}
_PASSWORD: Schema = {"type": "string", "minLength": 8, "maxLength": 200}
_ROLE: Schema = {"enum": ["ADMINISTRATOR", "OPERATOR", "VIEWER"]}
_ANY_OBJECT: Schema = {"type": "object"}
_MAYBE_OBJECT: Schema = {"type": ["object", "null"]}


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _array(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _page(of: str) -> Schema:
    members = {"data": _array(_named(of)), "totalPages": _NUMBER, "totalElements": _NUMBER, "hasNext": _FLAG}
    return _object(tuple(members), **members)


_ENTITY = _named("EntityId")

SCHEMAS: dict[str, Schema] = {
    "EntityId": _object(("id",), entityType=_TEXT, id={"type": "string", "format": "uuid"}),
    "Error": _object(
        ("status", "message", "errorCode", "timestamp"),
        status=_NUMBER, message=_TEXT, errorCode=_NUMBER, timestamp=_NUMBER,
    ),
    "Login": _object(("username", "password"), username=_TEXT, password=_TEXT),
    "Tokens": _object(("token", "refreshToken"), token=_TEXT, refreshToken=_TEXT),
    "Device": _object(
        ("name",), id=_ENTITY, name={"type": "string", "minLength": 1, "maxLength": 255}, type=_TEXT,
        label=_MAYBE_TEXT, createdTime=_NUMBER, tenantId=_ENTITY, customerId=_ENTITY, deviceProfileId=_ENTITY,
        additionalInfo=_MAYBE_OBJECT, version=_MAYBE_NUMBER,
    ),
    "DeviceInfo": {
        "allOf": [
            _named("Device"),
            _object(customerTitle=_MAYBE_TEXT, customerIsPublic=_FLAG, deviceProfileName=_TEXT, active=_FLAG),
        ]
    },
    "DeviceCredentials": _object(
        ("deviceId", "credentialsType"), id=_ANY_OBJECT, deviceId=_ENTITY,
        credentialsType={"enum": ["ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE"]}, credentialsId=_MAYBE_TEXT,
        credentialsValue=_MAYBE_TEXT, version=_MAYBE_NUMBER,
    ),
    "DeviceProfile": _object(
        ("name", "type", "transportType"), id=_ENTITY, name=_TEXT, type={"enum": ["DEFAULT"]},
        transportType={"enum": ["DEFAULT", "MQTT", "COAP", "LWM2M", "SNMP"]}, provisionType=_MAYBE_TEXT,
        provisionDeviceKey=_MAYBE_TEXT, profileData=_ANY_OBJECT, default=_FLAG, version=_MAYBE_NUMBER,
    ),
    "DeviceProfileInfo": _object(("id", "name"), id=_ENTITY, name=_TEXT, type=_TEXT, transportType=_TEXT),
    "Customer": _object(("title",), id=_ENTITY, title=_TEXT, email=_MAYBE_TEXT, version=_MAYBE_NUMBER),
    "User": _object(
        ("email", "authority"), id=_ENTITY, email=_TEXT,
        authority={"enum": ["TENANT_ADMIN", "CUSTOMER_USER", "SYS_ADMIN"]}, role={"enum": [*_ROLE["enum"], None]},
        customerId=_ENTITY, firstName=_MAYBE_TEXT, lastName=_MAYBE_TEXT, phone=_MAYBE_TEXT,
    ),
    "Relation": {
        **_object(to=_ENTITY, type=_TEXT, typeGroup=_TEXT, additionalInfo={}),
        "required": ["from", "to", "type"],
    },
    "Attribute": _object(("key", "value", "lastUpdateTs"), key=_TEXT, value={}, lastUpdateTs=_NUMBER),
    "TimeSeries": {
        "type": "object",
        "additionalProperties": _array(_object(("ts", "value"), ts=_NUMBER, value={})),
    },
    "Command": _object(
        ("method",), method=_TEXT, params={}, timeout=_NUMBER, persistent=_FLAG, retries=_NUMBER,
    ),
    "Values": {"type": "object", "additionalProperties": {}},
    "ManifestState": _object(
        ("importId", "devices", "taken"), importId={"type": "string", "format": "uuid"}, devices=_NUMBER, taken=_FLAG,
        takenBy=_MAYBE_TEXT, takenTime=_MAYBE_NUMBER, takenAs={"enum": ["manifest", "labels", None]},
        heldBy=_MAYBE_TEXT,
    ),
}  # fmt: skip
_relation_from = SCHEMAS["Relation"]["properties"]
_relation_from["from"] = _ENTITY

PARAMETERS: dict[str, Schema] = {
    "pageSize": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "page": {"type": "integer", "minimum": 0},
    "sortOrder": {"enum": ["ASC", "DESC"]},
    "orderBy": {"enum": ["ASC", "DESC"]},
    "agg": {"enum": ["NONE", "MIN", "MAX", "AVG", "SUM", "COUNT"]},
    "intervalType": {"enum": ["MILLISECONDS"]},
    "nameConflictPolicy": {"enum": ["FAIL", "UNIQUIFY"]},
    "uniquifyStrategy": {"enum": ["RANDOM", "INCREMENTAL"]},
    **dict.fromkeys(("startTs", "endTs", "interval", "limit"), _NUMBER),
    **dict.fromkeys(("active", "activeOnly", "useStrictDataTypes", "deleteAllDataForKeys", "deleteLatest"), _FLAG),
    **dict.fromkeys(("rewriteLatestIfDeleted", "secret", "shortId"), _FLAG),
    "sheet": {
        "anyOf": [{"enum": ["a4-24", "a4-21", "letter-30"]}, {"type": "string", "pattern": "^roll-[0-9.]+x[0-9.]+$"}]
    },
    "code": {"enum": ["qr", "datamatrix"]},
    "content": {"enum": ["name", "provisioning"]},
    **{name: {"type": "integer", "minimum": 1} for name in ("start", "from")},
    "to": {"type": "integer", "minimum": 0},
}

_TELEMETRY = "/api/plugins/telemetry/DEVICE/{uuid}"
_DEVICE, _PROFILE = _named("Device"), _named("DeviceProfile")

_RULES: dict[str, Schema] = {
    "budget": {"type": "integer", "minimum": 0}, "validFrom": {"type": "integer"}, "validUntil": {"type": "integer"},
    "networks": _array(_TEXT), "namePattern": _TEXT, "gateways": {"type": "boolean"}, "batch": _TEXT,
}  # fmt: skip

BODIES: dict[tuple[str, str], Schema] = {
    ("POST", "/api/deviceProfile/{profile}/keys"): _object(
        ("name",), name=_TEXT, provisionDeviceKey=_TEXT, provisionDeviceSecret=_TEXT, **_RULES
    ),
    ("POST", "/api/deviceProfile/{profile}/keys/{key}"): _object((), enabled={"type": "boolean"}, **_RULES),
    ("POST", "/api/deviceProfile/{profile}/rotateSecret"): _object(
        overlapSeconds={"type": "integer", "minimum": 0}
    ),
    ("POST", "/api/auth/login"): _named("Login"),
    ("POST", "/api/auth/token"): _object(("refreshToken",), refreshToken=_TEXT),
    ("POST", "/api/device"): _DEVICE,
    ("POST", "/api/device-with-credentials"): _object(
        ("device", "credentials"), device=_DEVICE, credentials=_ANY_OBJECT
    ),
    ("POST", "/api/devices"): {"anyOf": [_array(_DEVICE), _ANY_OBJECT]},
    ("POST", "/api/device/credentials"): _named("DeviceCredentials"),
    ("POST", "/api/deviceProfile"): _PROFILE,
    ("POST", "/api/customer"): _named("Customer"),
    ("POST", "/api/user"): _named("User"),
    ("POST", "/api/relation"): _named("Relation"),
    ("POST", "/api/v2/relation"): _named("Relation"),
    ("POST", "/api/customer/device/{name}/claim"): _object(secretKey=_TEXT),
    ("POST", "/api/devices/labels.pdf"): _object(
        ("deviceIds",), deviceIds=_array({"type": "string", "format": "uuid"})
    ),
    ("POST", "/api/devices/attributes/{scope}"): _object(
        ("deviceIds", "values"), deviceIds=_array({"type": "string", "format": "uuid"}), values=_named("Values")
    ),
    **{
        ("POST", path): _named("Values")
        for path in (
            "/api/plugins/telemetry/{uuid}/{scope}", f"{_TELEMETRY}/{{scope}}", f"{_TELEMETRY}/attributes/{{scope}}",
            f"{_TELEMETRY}/timeseries/{{scope}}", f"{_TELEMETRY}/timeseries/{{scope}}/{{ttl}}",
        )
    },
    **{
        ("POST", f"{path}/{kind}/{{uuid}}"): _named("Command")
        for path in ("/api/rpc", "/api/plugins/rpc") for kind in ("oneway", "twoway")
    },
    ("POST", "/api/otaPackage"): _object(
        ("title", "version", "type", "deviceProfileId"), title=_TEXT, version=_TEXT,
        type={"enum": ["FIRMWARE", "SOFTWARE"]}, deviceProfileId=_ENTITY, url=_MAYBE_TEXT, tag=_MAYBE_TEXT,
    ),
    ("POST", "/api/auth/changePassword"): _object(
        ("currentPassword", "newPassword"), currentPassword=_TEXT, newPassword=_PASSWORD
    ),
    ("POST", "/api/user/{uuid}/password"): _object(password=_PASSWORD),
    ("POST", "/api/apiKey"): _object(("name", "role"), name=_TEXT, role=_ROLE, expirationTime=_MAYBE_NUMBER),
    ("POST", "/api/tenant"): _object(("title",), id=_ENTITY, title=_TEXT, maxDevices=_NUMBER),
    ("POST", "/api/device/{uuid}/replace"): _object(("by",), by=_ENTITY),
    ("POST", "/api/device/{uuid}/resetProvisioning"): _object(newCredentials=_FLAG),
    ("POST", "/api/device/bulk_import"): _object(
        ("file", "mapping"), file=_TEXT,
        mapping=_object(columns=_array(_object(("type",), type=_TEXT, key=_TEXT)), delimiter=_TEXT, update=_FLAG,
                        header=_FLAG),
    ),
    ("POST", "/api/imports"): {**_TEXT, "examples": ["name,type,label\nSN-1,sensor,Hall 3\n"]},
    ("POST", "/api/otaPackage/{uuid}"): _object(("file",), file={"type": "string", "format": "binary"}),
    ("POST", "/api/ca"): _object(("name",), name=_TEXT),
    ("POST", "/api/ca/import"): _object(name=_TEXT),
    ("POST", "/api/ca/{which}/issue"): _object(csr=_TEXT),
    ("POST", "/api/certificates/revoke"): _ANY_OBJECT,
    ("POST", "/api/serverMethods"): _ANY_OBJECT,
    ("POST", "/api/v1/provision"): _object(
        ("provisionDeviceKey", "provisionDeviceSecret"), deviceName=_TEXT, provisionDeviceKey=_TEXT,
        provisionDeviceSecret=_TEXT, credentialsType=_TEXT, token=_TEXT,
    ),
    **{
        ("POST", f"/api/v1/{token}{feature}"): _named("Values")
        for token in ("{token}/", "") for feature in ("telemetry", "attributes", "claim", "rpc", "rpc/{request_id}")
    },
}  # fmt: skip

# What bodies are written in, where that is not JSON.
MEDIA_TYPES: dict[tuple[str, str], str] = {
    ("POST", "/api/imports"): "text/csv", ("POST", "/api/otaPackage/{uuid}"): "multipart/form-data",
}  # fmt: skip

ANSWERS: dict[tuple[str, str], Schema] = {
    ("POST", "/api/auth/login"): _named("Tokens"),
    ("POST", "/api/auth/token"): _named("Tokens"),
    ("GET", "/api/auth/user"): _named("User"),
    ("POST", "/api/device"): _DEVICE,
    ("POST", "/api/device-with-credentials"): _DEVICE,
    ("GET", "/api/device/{uuid}"): _DEVICE,
    ("GET", "/api/device/info/{uuid}"): _named("DeviceInfo"),
    ("GET", "/api/device/{uuid}/connections"): _object(
        ("connections", "silentNodes"),
        silentNodes=_NUMBER,
        connections=_array(
            _object(
                ("transport", "peer", "commands", "attributes"),
                transport=_TEXT,
                peer=_MAYBE_TEXT,
                commands=_FLAG,
                attributes=_FLAG,
            )
        ),
    ),
    ("GET", "/api/devices"): _array(_DEVICE),
    ("GET", "/api/device/{uuid}/credentials"): _named("DeviceCredentials"),
    ("POST", "/api/device/credentials"): _named("DeviceCredentials"),
    ("GET", "/api/tenant/device"): _DEVICE,
    ("GET", "/api/tenant/devices"): {"anyOf": [_page("Device"), _DEVICE]},
    ("GET", "/api/tenant/deviceInfos"): _page("DeviceInfo"),
    ("GET", "/api/deviceInfos/all"): _page("DeviceInfo"),
    ("POST", "/api/deviceProfile"): _PROFILE,
    ("GET", "/api/deviceProfile/{uuid}"): _PROFILE,
    ("POST", "/api/deviceProfile/{uuid}/default"): _PROFILE,
    ("GET", "/api/deviceProfiles"): _page("DeviceProfile"),
    ("GET", "/api/deviceProfileInfos"): _page("DeviceProfileInfo"),
    ("GET", "/api/deviceProfileInfo/default"): _named("DeviceProfileInfo"),
    ("GET", "/api/deviceProfileInfo/{uuid}"): _named("DeviceProfileInfo"),
    ("GET", "/api/customers"): _page("Customer"),
    ("GET", "/api/customer/{uuid}"): _named("Customer"),
    ("POST", "/api/customer"): _named("Customer"),
    ("GET", "/api/customer/{uuid}/devices"): _page("Device"),
    ("GET", "/api/relations"): _array(_named("Relation")),
    ("GET", f"{_TELEMETRY}/values/timeseries"): _named("TimeSeries"),
    ("GET", f"{_TELEMETRY}/values/timeseries/history"): _named("TimeSeries"),
    ("GET", f"{_TELEMETRY}/values/attributes"): _array(_named("Attribute")),
    ("GET", f"{_TELEMETRY}/values/attributes/{{scope}}"): _array(_named("Attribute")),
    **{
        ("GET", f"{_TELEMETRY}/keys/{kind}"): _array(_TEXT)
        for kind in ("timeseries", "attributes", "attributes/{scope}")
    },
}

ANSWERS |= {
    ("GET", "/api/imports/{uuid}/manifest"): _named("ManifestState"),
    ("POST", "/api/imports/{uuid}/manifest/release"): _named("ManifestState"),
}

# Answers that are files, by their media types.
FILES: dict[tuple[str, str], tuple[str, ...]] = {
    ("POST", "/api/imports/{uuid}/manifest"): ("text/csv", "application/x-ndjson"),
    ("GET", "/api/imports/{uuid}/errors.csv"): ("text/csv",),
    ("GET", "/api/imports/{uuid}/errors.ndjson"): ("application/x-ndjson",),
    **dict.fromkeys(((method, "/api/imports/{uuid}/labels.pdf") for method in ("GET", "POST")), ("application/pdf",)),
    ("POST", "/api/devices/labels.pdf"): ("application/pdf",),
}

WITHOUT_LOGIN = {
    ("POST", "/api/auth/login"), ("POST", "/api/auth/token"), ("GET", "/api/openapi.json"), ("GET", "/api/docs"),
    ("GET", "/metrics"), ("GET", "/health/live"), ("GET", "/health/ready"),
    ("GET", "/api/docs/{file}"), ("GET", "/api/ca/{uuid}/crl"), ("GET", "/api/ca/{uuid}/certificates"),
}  # fmt: skip

DESCRIPTIONS: dict[str, str] = {
    "provision": "Provisions a device by the key and secret of its profile.",
    "commands": "Waits for a command (a device), or lists a device's persistent commands (an operator).",
}
