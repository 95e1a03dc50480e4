"""What a device profile says about the wire, read from its REST members once and shared by its devices.

Source: wire-contract.md section 2.11; product.md section 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloud_core.proto_schemas import schemas_of, settings_of
from shared.codecs import JSON, Codec
from shared.protobuf_codec import WITHOUT_SCHEMAS, CompatibleCodec, ProtobufCodec

DEFAULT_TELEMETRY_TOPIC = "v1/devices/me/telemetry"
DEFAULT_ATTRIBUTES_TOPIC = "v1/devices/me/attributes"
MAX_SESSIONS_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """One instance for all devices of a profile. The filters replace the standard v1 names where they differ.

    `codec` reads the v1, custom and plain v2 topics and CoAP bodies, and writes plain v2 topics and CoAP bodies.
    `v1_downlink_codec` writes what goes to the device on v1 and custom topics. `protobuf_codec` reads and writes
    `…/p` topics, whatever the profile's payload type. `closes_on_malformed` is ThingsBoard's behaviour
    for a bad payload over MQTT 3, chosen by `sendAckOnValidationException: false` in a profile of type MQTT.
    `max_sessions` is ours (`maxSessionsPerDevice` in the transport configuration): how many MQTT sessions a
    device may hold before the oldest is replaced.
    """

    transport_type: str = "DEFAULT"
    telemetry_filter: str = DEFAULT_TELEMETRY_TOPIC
    attributes_filter: str = DEFAULT_ATTRIBUTES_TOPIC
    attributes_subscribe_topic: str = DEFAULT_ATTRIBUTES_TOPIC
    codec: Codec = field(default=JSON, repr=False, compare=False)
    v1_downlink_codec: Codec = field(default=JSON, repr=False, compare=False)
    protobuf_codec: Codec = field(default=WITHOUT_SCHEMAS, repr=False, compare=False)
    closes_on_malformed: bool = False
    max_sessions: int = 1

    @property
    def has_own_topics(self) -> bool:
        """Whether a publish must be matched against filters, not only looked up."""
        return self.telemetry_filter != DEFAULT_TELEMETRY_TOPIC or self.attributes_filter != DEFAULT_ATTRIBUTES_TOPIC


DEFAULT_OPTIONS = ProfileOptions()


def options_of(document: Mapping[str, Any]) -> ProfileOptions:
    """The options in a profile's REST members; whatever is missing or of the wrong type is the default.

    Compiles protobuf schemas, where there are any: not for the reactor thread.
    """
    transport_type = document.get("transportType")
    data = document.get("profileData")
    configuration = data.get("transportConfiguration") if isinstance(data, dict) else None
    if not isinstance(configuration, dict):
        configuration = {}
    is_mqtt = configuration.get("type") == "MQTT"
    sessions = configuration.get("maxSessionsPerDevice")
    if isinstance(sessions, bool) or not isinstance(sessions, int):
        sessions = 1
    return ProfileOptions(
        transport_type=transport_type if isinstance(transport_type, str) and transport_type else "DEFAULT",
        telemetry_filter=_topic(configuration, "deviceTelemetryTopic", DEFAULT_TELEMETRY_TOPIC, is_mqtt),
        attributes_filter=_topic(configuration, "deviceAttributesTopic", DEFAULT_ATTRIBUTES_TOPIC, is_mqtt),
        attributes_subscribe_topic=_topic(
            configuration, "deviceAttributesSubscribeTopic", DEFAULT_ATTRIBUTES_TOPIC, is_mqtt
        ),
        closes_on_malformed=is_mqtt and configuration.get("sendAckOnValidationException") is False,
        max_sessions=max(1, min(sessions, MAX_SESSIONS_LIMIT)),
        **_codecs(document),
    )


def has_protobuf_payloads(document: Mapping[str, Any]) -> bool:
    """Whether devices of the profile speak protobuf on the topics that leave it open. Compiles nothing."""
    return settings_of(document) is not None


def _codecs(document: Mapping[str, Any]) -> dict[str, Codec]:
    settings = settings_of(document)
    if settings is None:
        return {}
    schemas = schemas_of(settings)
    protobuf = ProtobufCodec(schemas)
    return {
        "codec": CompatibleCodec(schemas) if settings.takes_json_too else protobuf,
        "v1_downlink_codec": JSON if settings.has_json_downlinks else protobuf,
        "protobuf_codec": protobuf,
    }


def _topic(configuration: Mapping[str, Any], name: str, default: str, is_mqtt: bool) -> str:
    value = configuration.get(name) if is_mqtt else None
    return value.strip() if isinstance(value, str) and value.strip() else default
