"""Which codec a flavour of topic has in a profile, and what the profile's own topics mean (wire-contract.md 2.11)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from cloud_core.profile_options import DEFAULT_TELEMETRY_TOPIC, ProfileOptions
from shared import topics
from shared.codecs import JSON, Codec
from shared.errors import MalformedRequest
from shared.messages import Sample
from shared.mqtt.filters import matches
from shared.protobuf_codec import WITHOUT_SCHEMAS
from shared.topics import DeviceTopic, Flavour

# Topic -> parser of its telemetry. Shared by all sessions of a profile.
TelemetryParsers = dict[str, Callable[..., list[Sample]]]

NO_TELEMETRY: TelemetryParsers = {}
MAX_OWN_TOPICS = 1_000  # of one profile; beyond that they are matched anew each time
_WITHOUT_PROTOBUF = (
    "The device's profile has no protobuf schemas; publish JSON, or choose the payload type PROTOBUF in the profile."
)


def codec_of(options: ProfileOptions, flavour: Flavour) -> Codec:
    """Of what the device sends. Raises: MalformedRequest for protobuf where the profile has none."""
    if flavour is Flavour.V2_JSON:
        return JSON
    if flavour is not Flavour.V2_PROTOBUF:
        return options.codec
    if not has_codec(options, flavour):
        raise MalformedRequest(_WITHOUT_PROTOBUF)
    return options.protobuf_codec


def downlink_codec_of(options: ProfileOptions, flavour: Flavour) -> Codec:
    """Of what goes to the device: on v1 topics the profile may ask for JSON although the device sends protobuf."""
    return options.v1_downlink_codec if flavour is Flavour.V1 else codec_of(options, flavour)


def has_codec(options: ProfileOptions, flavour: Flavour) -> bool:
    return flavour is not Flavour.V2_PROTOBUF or options.protobuf_codec is not WITHOUT_SCHEMAS


def telemetry_parsers(options: ProfileOptions) -> TelemetryParsers:
    """The topics that are telemetry beyond doubt: the fast path of a session. It grows by the profile's own topics."""
    # A codec is hashed by what it is, one for each profile; mypy does not see that of a Protocol.
    protobuf = options.protobuf_codec if has_codec(options, Flavour.V2_PROTOBUF) else None
    return _telemetry_parsers(options.telemetry_filter, options.codec, protobuf)  # type: ignore[arg-type]


@lru_cache(1_000)
def _telemetry_parsers(telemetry_filter: str, codec: Codec, protobuf: Codec | None) -> TelemetryParsers:
    parsers: TelemetryParsers = {"v2/t": codec.telemetry, "v2/t/j": JSON.telemetry}
    if protobuf is not None:
        parsers["v2/t/p"] = protobuf.telemetry
    if matches(telemetry_filter, DEFAULT_TELEMETRY_TOPIC):
        parsers[DEFAULT_TELEMETRY_TOPIC] = codec.telemetry
    return parsers


def target_of(options: ProfileOptions, topic: str) -> DeviceTopic | None:
    """What publishing to `topic` asks for in this profile. Raises: MalformedRequest.

    The profile's filters replace the two v1 names and take what is no topic of the API; they cannot take requests
    or short topics away.
    """
    target = topics.parse_topic(topic)
    if options.has_own_topics and (target is None or target in (topics.V1_TELEMETRY, topics.V1_ATTRIBUTES)):
        return _own_target(options, topic)
    return target


def _own_target(options: ProfileOptions, topic: str) -> DeviceTopic | None:
    if matches(options.attributes_filter, topic):
        return topics.V1_ATTRIBUTES
    if not matches(options.telemetry_filter, topic):
        return None
    parsers = telemetry_parsers(options)
    if len(parsers) < MAX_OWN_TOPICS:
        parsers[topic] = options.codec.telemetry
    return topics.V1_TELEMETRY
