"""Device profiles as forms: what was typed becomes the members that REST takes, so that there is one rule for both.

Pure: values are texts by field name, an unticked box is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cloud_core.model import (
    Approval,
    DeviceProfile,
    KeyRules,
    ProvisionConfiguration,
    ProvisionStrategy,
    Reprovisioning,
)
from cloud_core.profile_options import options_of
from cloud_core.transports.http.ui.visits import Form
from shared.errors import InvalidArgument

Values = dict[str, str]
CHAIN = ProvisionStrategy.X509_CERTIFICATE_CHAIN.value
REPLAY = Reprovisioning.REPLAY_UNTIL_CONFIRMED.value


class Strategy(NamedTuple):
    """How people are told of one. `short` stands in lists."""

    name: str
    short: str
    title: str
    text: str


STRATEGIES = (
    Strategy(
        ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES.value, "creates new devices", "Allow creating new devices",
        "Any device that shows the provision key and secret is let in, under a name that is free. The core makes the "
        "device and gives it credentials of its own. The usual choice to begin with.",
    ),
    Strategy(
        ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES.value, "pre-provisioned", "Check pre-provisioned devices",
        "Only devices that you created or imported under this profile before are let in, each once.",
    ),
    Strategy(
        CHAIN, "certificates", "X.509 certificate chain",
        "Devices whose certificate was issued by a CA that you name. No provision key: the certificate is the proof. "
        "Needs the TLS ports.",
    ),
    Strategy(
        ProvisionStrategy.DISABLED.value, "disabled", "Disabled",
        "Nobody is let in. Devices that have their credentials already go on working.",
    ),
)  # fmt: skip
STRATEGY = {one.name: one for one in STRATEGIES}

TICKS = ("creates", "approval", "accepts", "seeds")
TEXTS: Values = {
    "name": "", "description": "", "strategy": ProvisionStrategy.ALLOW_CREATE_NEW_DEVICES.value, "key": "",
    "secret": "", "ca": "", "pem": "", "pattern": "(.*)", "reprovisioning": REPLAY, "window": "3600",
    "key_name": "", "budget": "", "until": "", "name_pattern": "",
}  # fmt: skip
ADVANCED: Values = {
    "transport": "DEFAULT", "telemetry_topic": "", "attributes_topic": "", "authority": "", "certificate_days": "365",
}  # fmt: skip
TRANSPORTS = (
    ("DEFAULT", "Any (MQTT, HTTP, CoAP with the standard topics)"),
    ("MQTT", "MQTT with topics of its own"),
    ("COAP", "CoAP"),
)


class Step(NamedTuple):
    """A page of the wizard."""

    name: str
    title: str


STEPS = (
    Step("details", "Details"), Step("strategy", "Strategy"), Step("access", "Keys or CA"), Step("rules", "Rules"),
    Step("review", "Review"), Step("connect", "Connect a device"),
)  # fmt: skip
STEP_NAMES = tuple(one.name for one in STEPS)
FIELDS: dict[str, tuple[str, ...]] = {
    "details": ("name", "description"),
    "strategy": ("strategy",),
    "access": ("key", "secret", "ca", "pem", "pattern", "creates"),
    "rules": (
        "reprovisioning",
        "window",
        "approval",
        "accepts",
        "seeds",
        "key_name",
        "budget",
        "until",
        "name_pattern",
    ),
    "review": (),
}


def start_values() -> Values:
    """Of the wizard: good to be sent as they are, but for the name."""
    return {**TEXTS, **dict.fromkeys(TICKS, ""), "creates": "yes"}


def typed(form: Form) -> Values:
    """What the wizard's form holds; what was left out of it is as at the start, boxes are not ticked."""
    texts = {name: form[name] if name in form.fields else start for name, start in TEXTS.items()}
    return texts | {name: "yes" if form.is_on(name) else "" for name in TICKS}


def is_by_chain(values: Mapping[str, str]) -> bool:
    return values["strategy"] == CHAIN


def body_of(values: Mapping[str, str], known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The REST members of a profile; what no field is for stays as `known` has it, a secret left empty too."""
    body: dict[str, Any] = (
        deepcopy(known) if known else {"type": "DEFAULT", "transportType": "DEFAULT", "profileData": {}}
    )
    data = body.setdefault("profileData", {})
    data.setdefault("configuration", {"type": "DEFAULT"})
    data.setdefault("transportConfiguration", {"type": "DEFAULT"})
    configuration = data.setdefault("provisionConfiguration", {})
    was_by_chain, strategy = body.get("provisionType") == CHAIN, values["strategy"]
    if was_by_chain is not (strategy == CHAIN):  # key and secret mean something else
        body["provisionDeviceKey"] = configuration["provisionDeviceSecret"] = None
    body |= {"name": values["name"], "description": values["description"] or None, "provisionType": strategy}
    configuration |= {
        "type": strategy, "reprovisioning": values["reprovisioning"],
        "replayWindowSeconds": _number(values["window"]),
        "approval": (Approval.REQUIRED if values["approval"] and strategy != CHAIN else Approval.NONE).value,
        "acceptDeviceCredentials": bool(values["accepts"]), "seedErrorMessages": bool(values["seeds"]),
    }  # fmt: skip
    if strategy == CHAIN:
        configuration |= {
            "certificateRegExPattern": values["pattern"],
            "allowCreateNewDevicesByX509Certificate": bool(values["creates"]),
        }
        if values["pem"]:
            configuration["provisionDeviceSecret"], body["provisionDeviceKey"] = values["pem"], None
    else:
        configuration.pop("revocation", None)
        body["provisionDeviceKey"] = values["key"] or body.get("provisionDeviceKey")
        configuration["provisionDeviceSecret"] = values["secret"] or configuration.get("provisionDeviceSecret")
    return body


def with_advanced(body: dict[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The members that the edit page has beside; topics are the profile's own where its transport is MQTT."""
    configuration = body["profileData"]["provisionConfiguration"]
    configuration |= {
        "certificateAuthority": values["authority"] or None,
        "certificateLifetimeDays": _number(values["certificate_days"]),
    }
    transport, former = values["transport"], body.get("transportType") or "DEFAULT"
    body["transportType"] = transport
    if transport != former:
        body["profileData"]["transportConfiguration"] = {"type": transport}
    if transport == "MQTT":
        topics = {"deviceTelemetryTopic": "telemetry_topic", "deviceAttributesTopic": "attributes_topic"}
        own = body["profileData"]["transportConfiguration"]
        for member, name in topics.items():
            if values[name] or member in own:
                own[member] = values[name] or None
    return body


def edited(form: Form) -> Values:
    """What the edit page's form holds."""
    return typed(form) | {name: form[name] if name in form.fields else start for name, start in ADVANCED.items()}


def values_of(profile: DeviceProfile) -> Values:
    """A profile as the fields of the edit page; its secret is not among them."""
    provision, document = profile.provision, profile.document
    by_chain = provision.strategy.value == CHAIN
    options = options_of({**document, "profileData": _without_schemas(document)})
    is_mqtt = options.transport_type == "MQTT"
    return start_values() | {
        "name": profile.name, "description": str(document.get("description") or ""),
        "strategy": provision.strategy.value, "key": "" if by_chain else provision.key,
        "pem": provision.secret if by_chain else "", "pattern": provision.certificate_pattern or "(.*)",
        "creates": _tick(provision.allow_create_by_certificate if by_chain else True),
        "reprovisioning": provision.reprovisioning.value, "window": str(provision.replay_window_s),
        "approval": _tick(provision.approval is Approval.REQUIRED),
        "accepts": _tick(provision.accept_device_credentials), "seeds": _tick(provision.seed_error_messages),
        "transport": options.transport_type, "authority": provision.authority,
        "certificate_days": str(provision.certificate_days),
        "telemetry_topic": options.telemetry_filter if is_mqtt else "",
        "attributes_topic": options.attributes_filter if is_mqtt else "",
    }  # fmt: skip


def _without_schemas(document: Mapping[str, Any]) -> dict[str, Any]:
    """Topics alone are wanted: compiling schemas takes long."""
    data = document.get("profileData")
    configuration = data.get("transportConfiguration") if isinstance(data, dict) else None
    if not isinstance(configuration, dict):
        return {}
    dropped = ("transportPayloadTypeConfiguration", "coapDeviceTypeConfiguration")
    return {"transportConfiguration": {key: value for key, value in configuration.items() if key not in dropped}}


def _tick(is_on: bool) -> str:
    return "yes" if is_on else ""


def _number(text: str) -> int | str:
    """A text that is no number goes on as it is, and is refused where REST's are."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else text


# -- a provision key with limits -------------------------------------------------------------------


def wants_key(values: Mapping[str, str]) -> bool:
    """Whether any limit is given, which only a further provision key can have."""
    return not is_by_chain(values) and any(values[name] for name in ("key_name", "budget", "until", "name_pattern"))


def key_rules(values: Mapping[str, str]) -> KeyRules:
    """Raises: InvalidArgument."""
    budget = _number(values["budget"] or "0")
    if isinstance(budget, str):
        raise InvalidArgument("The budget must be a number of devices, or empty for no limit")
    return KeyRules(budget=budget, valid_until_ms=_end_of(values["until"]), name_pattern=values["name_pattern"])


def key_name(values: Mapping[str, str]) -> str:
    return values["key_name"] or "first-batch"


def _end_of(day: str) -> int:
    """The end of the day, in UTC; 0 for none."""
    if not day:
        return 0
    try:
        return int((datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("The last day must be a date such as 2027-01-31") from error


# -- words -----------------------------------------------------------------------------------------


_LABELS = {
    "Validation error: ": "", "profileData.provisionConfiguration.provisionDeviceSecret": "the CA certificate",
    "certificateRegExPattern": "the name rule", "replayWindowSeconds": "the time in seconds",
    "transportType": "the transport", "certificateLifetimeDays": "the days of a certificate",
    "namePattern": "the rule for names",
}  # fmt: skip


def plain(text: str) -> str:
    """A refusal with the names of fields in the place of REST members."""
    for member, label in _LABELS.items():
        text = text.replace(member, label)
    return text[:1].upper() + text[1:]


def step_of_problem(text: str, values: Mapping[str, str]) -> str:
    """The step whose field a refusal at the end is about: something that only the database knows."""
    lowered = text.lower()
    if "name already exists" in lowered or "profile name" in lowered:
        return "details"
    if "device key" in lowered or "provision key" in lowered or "certificate" in lowered or is_by_chain(values):
        return "access"
    return "review"


def settings_of(provision: ProvisionConfiguration) -> list[tuple[str, str]]:
    """What a profile's page says beside strategy, key and secret."""
    if provision.strategy.value == CHAIN:
        return [
            ("Name rule", provision.certificate_pattern),
            ("Unknown devices", "are created" if provision.allow_create_by_certificate else "are refused"),
            ("Renewal", provision.renewal.value.lower().replace("_", " ")),
        ]
    lost = "are not repeated; who asks again is refused"
    window = f"for {provision.replay_window_s} s, until the credentials are first used"
    if provision.reprovisioning.value == REPLAY:
        lost = f"may be asked for again {window}"
    needs_approval = provision.approval is Approval.REQUIRED
    rows = [
        ("Lost answers", lost),
        ("Approval", "an operator lets each device in" if needs_approval else "not needed"),
    ]  # fmt: skip
    if provision.strategy is ProvisionStrategy.CHECK_PRE_PROVISIONED_DEVICES:
        accepts = provision.accept_device_credentials
        rows.append(("Credentials", "devices may bring their own" if accepts else "those stored for the device"))
    if provision.seed_error_messages:
        rows.append(("Error texts", "those of the specification"))
    return rows
